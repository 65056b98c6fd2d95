"""The checkpoint room: folders that are verifiably whole or ignored, whatever killed the process or the disk.

`save`, `newest`, `load` for the checkpoints of a run; `save_model`, `load_model` for a finished model;
`verify` for either; `RunLock` for the run folder. Tensors come as dicts by name and go as dicts by name: what
a model, an optimizer or a stream is may not enter here, and nothing that could run code from a file.
"""

from groundup.checkpoint.disk import SaveError
from groundup.checkpoint.folder import (
    Checkpoint,
    CheckpointOptions,
    Found,
    checkpoint_folders,
    load,
    newest,
    save,
)
from groundup.checkpoint.header import read_header
from groundup.checkpoint.keys import strict_key_report
from groundup.checkpoint.lock import RunLock
from groundup.checkpoint.manifest import Problem, read_manifest, verify
from groundup.checkpoint.model_folder import load_averaged, load_files, load_model, save_model
from groundup.checkpoint.pickles import is_pickle, refuse_only_pickles, refuse_pickle
from groundup.checkpoint.tensors import Stored, Unmade, pack_state, read_safetensors, unpack_state, write_safetensors

__all__ = [
    "Checkpoint",
    "CheckpointOptions",
    "Found",
    "Problem",
    "RunLock",
    "SaveError",
    "Stored",
    "Unmade",
    "checkpoint_folders",
    "is_pickle",
    "load",
    "load_averaged",
    "load_files",
    "load_model",
    "newest",
    "pack_state",
    "read_header",
    "read_manifest",
    "read_safetensors",
    "refuse_only_pickles",
    "refuse_pickle",
    "save",
    "save_model",
    "strict_key_report",
    "unpack_state",
    "verify",
    "write_safetensors",
]
