"""The composition root: the only place where the parts are put together. Read it to see everything.

models.py    options → network on a device; model folders and the many things that MODEL may name
texts.py     a recipe's text → tokenizer and packed rows
chats.py     a recipe's conversations → packed rows and held-out questions
assemble.py  a resolved recipe → everything that the loop needs
measure.py   seconds of a step and bytes of memory, measured and foreseen
train.py     the run: folder, lock, resume, loop, final model, results
plan.py      what a run will need, without training
quickstart.py  the whole life, from this machine's own documentation to answers
"""
