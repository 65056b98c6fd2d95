"""The one error that a user of groundup ever sees, and the list of its codes.

Every part raises `GroundupError`; nothing else may reach the user. The command line prints it in five
parts (code, what, where, why, fix) and exits; the Python API raises it as it is. `CATALOGUE` says in a
sentence what each code is about: `groundup explain CODE` prints it, and a test keeps the list and the
raises in step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CATALOGUE: dict[str, str] = {
    # one line per code, kept sorted; the text is what `groundup explain CODE` prints
    "E-CHAT-001": "A chat template does not compile, fails, or tries to leave its sandbox or to work without end.",
    "E-CHAT-002": "A chat template does not mark each part of the assistant with {% generation %}.",
    "E-CHAT-003": "A chat template drops what was said, or its prompt is not how a trained conversation begins.",
    "E-CHAT-004": "A message has a wrong shape: role, content or train flag; the path says which.",
    "E-CHAT-005": "A chat template writes more than one <|begin|> in a conversation.",
    "E-CHAT-006": "Messages use nearly all of the Unicode noncharacters U+FDD0 to U+FDEF.",
    "E-CHAT-020": "The Jinja file that data.template names cannot be read.",
    "E-CKPT-001": "The disk has too little free space for what is to be saved; nothing was written.",
    "E-CKPT-002": "The operating system refused a write during a save; what was saved before is untouched.",
    "E-CKPT-003": "The state of a run holds a value that JSON could not give back exactly.",
    "E-CKPT-004": "A tensor cannot be stored exactly: sparse, without data, or of a dtype that the file format lacks.",
    "E-CKPT-005": "A checkpoint or model folder is not whole: files are missing, changed, added, or of another step.",
    "E-CKPT-006": "A newer groundup wrote the checkpoint or model folder; the version needed is named.",
    "E-CKPT-007": "A checkpoint's layout is so old that this groundup has no migration from it.",
    "E-CKPT-008": "A safetensors file contradicts itself or its size: damaged, cut short, or made to mislead.",
    "E-CKPT-009": "The weights are a pickle, which can run any program when opened; convert them to safetensors.",
    "E-CKPT-010": "The names or shapes of saved tensors are not those of the model; every difference is listed.",
    "E-CKPT-011": "There is no checkpoint, model or part of one at the path that was named.",
    "E-CKPT-012": "A model would be saved over a folder that groundup did not write.",
    "E-DATA-001": "Nothing is left to train on, or a set that was asked for is empty: the counts say "
    "which filter took the documents.",
    "E-DATA-002": "A file to read does not exist, matches nothing, or cannot be opened.",
    "E-DATA-003": "More rows are malformed than data.malformed_limit allows; they are listed in "
    "quarantine.jsonl.",
    "E-DATA-004": "A shard of prepared data was changed, lost or renamed after it was written.",
    "E-DATA-005": "A folder of prepared data has no readable index, or not the split that was asked for.",
    "E-DATA-006": "Text is not valid UTF-8 and data.utf8 is set to error.",
    "E-DATA-007": "A compressed file unpacks to far more than its size: an archive bomb, or nearly one.",
    "E-DATA-008": "A file of a kind that is not read, such as an archive.",
    "E-DATA-009": "A file is damaged or is not what its name says.",
    "E-DATA-010": "A file has no column of that name, or the column does not hold text.",
    "E-DATA-011": "Training documents equal held-out ones, and data.split.overlap is set to refuse.",
    "E-DATA-012": "The disk is full or cannot be written; finished pieces are kept and used by the next "
    "start.",
    "E-DATA-013": "A worker process died or stalled; the error names what it was working on.",
    "E-DATA-014": "A kind of file needs an optional extra that is not installed.",
    "E-DATA-015": "Options of data preparation contradict each other.",
    "E-DATA-016": "Prepared data was made with another tokenizer than the one in use.",
    "E-DATA-060": "The sources of Python's standard library, which the corpus is made of, are missing.",
    "E-DATA-061": "The fields of fine-tuning rows fit no known layout, so the columns have to be named.",
    "E-DATA-062": "A fine-tuning row is longer than the context, and over-long rows are refused.",
    "E-DATA-090": "The prepared data was tokenized by another tokenizer than that of the model it shall train.",
    "E-DATA-091": "No conversation is left to learn from once rows are fitted to the context.",
    "E-EVAL-001": "A metric was asked for that does not exist.",
    "E-EVAL-002": "A metric cannot be measured on the kind of data in these files.",
    "E-EVAL-003": "The loss of some targets is not finite: damaged weights or a diverged training.",
    "E-EVAL-004": "The files hold nothing that can be measured.",
    "E-EVAL-005": "A file for evaluation cannot be read, or too many of its rows are malformed.",
    "E-GEN-001": "A generation option (temperature, top_k, top_p and so on) is unknown or outside its range.",
    "E-GEN-002": "The prompt has no tokens.",
    "E-GEN-003": "The prompt is longer than the model's context.",
    "E-GEN-004": "The model's output is not finite: damaged weights or a diverged training.",
    "E-GEN-005": "The prompt holds token ids that the model does not know.",
    "E-GEN-006": "Stop texts were given where only ids are generated.",
    "E-GEN-007": "The model has no chat template.",
    "E-MACHINE-001": "The recipe or the command names a device that torch does not find on this machine.",
    "E-MACHINE-002": "The precision asked for is not one of auto, float32 and bfloat16.",
    "E-MACHINE-900": "The operating system refused what was asked: no space, no permission, no such path.",
    "E-MACHINE-901": "A Python package that this verb needs is not installed in the environment.",
    "E-MODEL-001": "A file beside the weights (model.json, tokenizer.json, chat.json) is missing or malformed.",
    "E-MODEL-002": "model.json names a model family that this version cannot build.",
    "E-MODEL-003": "The weights, the tokenizer and the chat template in a model folder do not belong together.",
    "E-MODEL-004": "There is no run, checkpoint or model at the path that was given as MODEL.",
    "E-RECIPE-001": "The recipe file cannot be read: it is missing, a folder, or not open to this user.",
    "E-RECIPE-002": "The recipe is not UTF-8 text, or it holds control characters.",
    "E-RECIPE-003": "The recipe is not readable as YAML: a tab, an open bracket or quote, a colon inside a text.",
    "E-RECIPE-004": "The same key stands twice in one mapping of the recipe, so one value would be lost.",
    "E-RECIPE-005": "The recipe uses what plain values do not need (tags, endless aliases) or is far too large.",
    "E-RECIPE-006": "The recipe is a list or a single value; it must be a mapping of fields.",
    "E-RECIPE-007": "The recipe or an override names a field that does not exist at that place.",
    "E-RECIPE-008": "A field that has no default is missing from the recipe.",
    "E-RECIPE-009": "A field of the recipe has a value of another type than it takes.",
    "E-RECIPE-010": "A field of the recipe has a value outside its legal range or length.",
    "E-RECIPE-011": "A field of the recipe takes one of a few words, and was given another.",
    "E-RECIPE-012": "The kind of a part is missing or unknown; it decides which fields the part takes.",
    "E-RECIPE-013": "A field is set that another kind of this part has, but not the kind that was chosen.",
    "E-RECIPE-014": "An override on the command line is not of the form key.sub=value, or has nowhere to go.",
    "E-RECIPE-015": "Values inside one part of the recipe do not go together.",
    "E-RECIPE-030": "A field is set that does nothing in this recipe, because another field rules it out.",
    "E-RECIPE-031": "The recipe does not say how large the model is.",
    "E-RECIPE-032": "The width of the model cannot be divided into equal, even heads.",
    "E-RECIPE-033": "The key-value heads do not divide the query heads into equal groups.",
    "E-RECIPE-034": "The rows of the data are longer than the context of the model.",
    "E-RECIPE-035": "The recipe names no text to learn from, or names it in more than one way.",
    "E-RECIPE-036": "The length of the run is not said, or said in more than one way.",
    "E-RECIPE-037": "The tokens of a step do not make whole micro-batches of whole rows.",
    "E-RECIPE-038": "The entries of optim are not the players of the objective.",
    "E-RECIPE-039": "The warm-up of the learning rate is longer than the run.",
    "E-RECIPE-040": "Early stopping waits for a metric that is not measured while training on this kind of data.",
    "E-REPORT-001": "A report was asked for a run folder that does not exist.",
    "E-REPORT-002": "The report could not be written beside the run: a read-only folder or a full disk.",
    "E-REPORT-003": "Runs were to be listed below a folder that does not exist.",
    "E-REPORT-004": "A folder was named as a run, but holds none of the files that a run writes.",
    "E-RUN-001": "Another process is at work in the run folder, and holds its lock.",
    "E-RUN-002": "A new run was to begin in a folder that already holds one.",
    "E-RUN-003": "A resume with a recipe whose model, data or kind of state differs from that of the run.",
    "E-RUN-004": "A resume with a recipe that differs from the one that the run began with.",
    "E-RUN-010": "No parameter of the model is trainable.",
    "E-RUN-011": "The saved state of an optimizer belongs to other parameters than those that are trained.",
    "E-RUN-020": "The loss or its gradient was not finite in several steps in a row, so the run stopped.",
    "E-RUN-021": "Several steps in a row had no target to learn from, because all of them are masked.",
    "E-RUN-022": "The loss spiked again after each of several rewinds to the same checkpoint.",
    "E-RUN-030": "The longest batch does not fit into memory; the fields to lower are named.",
    "E-RUN-031": "Trainable parameters get no gradient, so they would stay as they were drawn.",
    "E-RUN-900": "An unforeseen case: a fault in groundup itself. --debug shows the traceback to report.",
    "E-RUN-901": "The machine's memory was used up; `groundup plan` says what fits.",
    "E-TOKEN-001": "A tokenizer option is missing, out of range, or does not belong to that kind of tokenizer.",
    "E-TOKEN-002": "The text is too small for the vocabulary asked for.",
    "E-TOKEN-003": "There is no text to train a tokenizer on.",
    "E-TOKEN-004": "A text holds a lone surrogate, which has no bytes in UTF-8.",
    "E-TOKEN-005": "There is no tokenizer.json to read.",
    "E-TOKEN-006": "A tokenizer.json is malformed or would change text in silence.",
    "E-TOKEN-007": "An id is outside the tokenizer's vocabulary.",
    "E-TOKEN-008": "A new tokenizer would overwrite one that is there.",
    "E-USE-001": "The first word of the command is not a verb of groundup.",
    "E-USE-002": "The command has a flag that this verb does not know.",
    "E-USE-003": "The command lacks an argument that this verb needs.",
    "E-USE-004": "An argument of the command has a value that it does not take.",
    "E-USE-005": "`groundup explain` was asked for a code that does not exist.",
    "E-USE-006": "The command has more arguments than this verb takes.",
    "E-USE-007": "An option has a value outside its range or of another type.",
    "E-USE-020": "A path on the command line does not exist or is not of the kind the verb works on.",
    "E-USE-021": "`groundup quickstart` was given both --code and --text.",
    "E-USE-022": "`groundup quickstart` was to work in a folder that is not empty.",
    "E-USE-030": "`groundup new` was asked for a kind of recipe that does not exist.",
    "E-USE-031": "`groundup new` would write over a file that is there.",
}


@dataclass(eq=False)
class GroundupError(Exception):
    """A fault that the user can mend.

    Args:
        code: the stable name of the kind of fault, `E-ROOM-NNN`, listed in `CATALOGUE`.
        what: one line: what is wrong, with the numbers.
        where: the file, line, field or step at fault; may have several lines.
        why: why this matters or why it was refused.
        fix: the command or the edit that mends it; may have several lines.
        exit_code: 1 when something failed, 2 when the tool was used wrongly.
    """

    code: str
    what: str
    where: str = ""
    why: str = ""
    fix: str = ""
    exit_code: int = 1
    others: list[GroundupError] = field(default_factory=list)  # faults that were found in the same pass

    def __post_init__(self) -> None:
        super().__init__(self.what)

    def __str__(self) -> str:
        lines = [f"{self.code}  {self.what}"]
        for name in ("where", "why", "fix"):
            text: str = {"where": self.where, "why": self.why, "fix": self.fix}[name]
            for index, line in enumerate(text.splitlines()):
                lines.append(f"  {name if index == 0 else '':5}  {line}")
        for other in self.others:
            lines += ["", str(other)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """The same five parts for `--json`."""
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
            "others": [other.as_dict() for other in self.others],
        }


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The known name that `word` was most likely meant to be, or None if none is close."""
    import difflib

    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def printable(text: str, limit: int = 200) -> str:
    """`text` made safe to print: control characters and terminal escapes shown, the length bounded.

    Names and values in error messages come from files that somebody else may have written.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
