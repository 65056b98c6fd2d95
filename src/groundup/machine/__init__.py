"""The machine room: what this machine offers, looked up (`describe`), measured (`ceiling`) and watched while
a process works (`memory`).

Its parts read the operating system and time small computations. They never change how torch computes, touch
no global random state, and know nothing of models, data or runs. This file imports nothing, so that looking
up the cores does not load torch.
"""
