"""The composition root: the only place where the parts are put together. Read it to see everything.

gather.py      a checked recipe → its work, by the kind of its data
work.py        what every kind of data answers: what is learned from, what learns, is kept, is measured, and costs
language.py    texts, conversations and labelled texts; texts.py, chats.py and labels.py make them ready
prediction.py  tables and images with answers; generation.py images that are made; translation.py pairs of texts
acting.py      environments; playing.py games; network_work.py what all these networks share
models.py      language models → networks on a device, and the many things that MODEL may name; networks.py the others
assemble.py    a work → everything that the loop needs
rehearse.py    seconds of a step, measured; foresight.py bytes of memory, foreseen
train.py       the run: folder, lock, resume, loop, final model, results
hardware.py    torch.compile and compiled functions: whether they are used, settled once for a run
plan.py        what a run will need, without training; profile.py where the time of a step goes
quickstart.py  the whole life, from this machine's own documentation to answers
"""
