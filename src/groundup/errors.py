"""The one error that a user of groundup ever sees, and the list of its codes.

Every part raises `GroundupError`; nothing else may reach the user. The command line prints it in five
parts (code, what, where, why, fix) and exits; the Python API raises it as it is. `CATALOGUE` says in a
sentence what each code is about: `groundup explain CODE` prints it, and a test keeps the list and the
raises in step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CATALOGUE: dict[str, str] = {
    "E-ADAPT-001": "A pattern of an adapter matches nothing in the model; the nearest names are listed.",
    "E-ADAPT-002": "A pattern of an adapter matches a part of the model that it cannot adapt.",
    "E-ADAPT-003": "Freezing names layers that the model does not have, or a step that unfreezes nothing.",
    "E-ADAPT-004": "An adapter was named that the model does not have.",
    "E-ADAPT-005": "Two adapters in the same part of the model have one name.",
    "E-ADAPT-006": "The vocabulary cannot grow as asked, or no longer once the embedding is adapted.",
    "E-ADAPT-007": "An adapter is not a change of weights, so it cannot be merged into them.",
    "E-ADAPT-008": "The tensors of an adapter do not fit the model: names or shapes differ; all are listed.",
    "E-ADAPT-009": "Checkpoints are to be averaged that are not those of one model.",
    "E-ADAPT-020": "A model without adapters was to be merged.",
    "E-ADAPT-021": "A model without a low-rank adapter was to be written in the PEFT layout.",
    "E-ADAPT-022": "Models are to be averaged whose sizes, heads or tokenizers differ.",
    "E-ADAPT-023": "The number of weights is not that of the models or adapters to merge.",
    "E-ADAPT-024": "An adapter is to be imported on a base that has adapters of its own.",
    "E-CHAT-001": "A chat template does not compile, fails, or tries to leave its sandbox or to work without end.",
    "E-CHAT-002": "A chat template does not mark each part of the assistant, nor do its renderings tell them.",
    "E-CHAT-003": "A chat template drops what was said, or its prompt is not how a trained conversation begins.",
    "E-CHAT-004": "A message has a wrong shape: role, content or train flag; the path says which.",
    "E-CHAT-005": "A chat template writes the token that begins a conversation more than once.",
    "E-CHAT-006": "Messages use nearly all of the Unicode noncharacters U+FDD0 to U+FDEF.",
    "E-CHAT-007": "The tokens that a chat template writes are not in the tokenizer: they belong to different models.",
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
    "E-DATA-001": "Nothing is left to train on, or a set that was asked for is empty; the counts say what took it.",
    "E-DATA-002": "A file to read does not exist, matches nothing, or cannot be opened.",
    "E-DATA-003": "More rows are malformed than data.malformed_limit allows; they are listed in quarantine.jsonl.",
    "E-DATA-004": "A shard of prepared data was changed, lost or renamed after it was written.",
    "E-DATA-005": "A folder of prepared data has no readable index, or not the split that was asked for.",
    "E-DATA-006": "Text is not valid UTF-8 and data.utf8 is set to error.",
    "E-DATA-007": "A compressed file unpacks to far more than its size: an archive bomb, or nearly one.",
    "E-DATA-008": "A file of a kind that is not read, such as an archive.",
    "E-DATA-009": "A file is damaged or is not what its name says.",
    "E-DATA-010": "A file has no column of that name, or the column does not hold text.",
    "E-DATA-011": "Training documents equal held-out ones, and data.split.overlap is set to refuse.",
    "E-DATA-012": "The disk is full or cannot be written; finished pieces are kept and used by the next start.",
    "E-DATA-013": "A worker process died or stalled; the error names what it was working on.",
    "E-DATA-014": "A kind of file needs an optional extra that is not installed.",
    "E-DATA-015": "Options of data preparation contradict each other.",
    "E-DATA-016": "Prepared data was made with another tokenizer than the one in use.",
    "E-DATA-060": "The sources of Python's standard library, which the corpus is made of, are missing.",
    "E-DATA-061": "The fields of fine-tuning rows fit no known layout, so the columns have to be named.",
    "E-DATA-062": "A fine-tuning row is longer than the context, and over-long rows are refused.",
    "E-DATA-090": "The prepared data was tokenized by another tokenizer than that of the model it shall train.",
    "E-DATA-091": "No conversation is left to learn from once rows are fitted to the context.",
    "E-DATA-100": "The columns of a table of labelled rows are not recognised, or one that is named is missing.",
    "E-DATA-101": "Texts of the validation or test set are also trained on, and data.split.leaks is set to refuse.",
    "E-DATA-102": "Labels of the validation or test set never occur in training.",
    "E-DATA-103": "All training rows have the same answer, so there is nothing to learn.",
    "E-DATA-104": "There are too few rows, texts or groups for the folds that were asked for.",
    "E-DATA-105": "The columns of a file of translations are not recognised, or one that is named is missing.",
    "E-DATA-106": "Pairs of a text and its translation are longer than the limit, and over-long pairs are refused.",
    "E-DATA-107": "No pair of a text and its translation is left to learn from once they are encoded.",
    "E-DATA-110": "The columns of a table are not recognised, lacking in one of its files, or named and missing.",
    "E-DATA-111": "Training rows equal rows that are measured, and data.split.leaks is set to refuse.",
    "E-DATA-112": "Cells of a table are empty, NaN or too large, and nothing is filled in for them.",
    "E-DATA-113": "A column of a table is empty in all training rows, so nothing can be filled in.",
    "E-DATA-114": "A cell of a table holds a category that the training rows do not have.",
    "E-DATA-115": "A cell of a table holds text in a column of numbers, or a list or object.",
    "E-DATA-116": "A row lacks a column that the model was trained on.",
    "E-DATA-117": "A table has fewer training rows than one batch.",
    "E-DATA-118": "A column of a table has more categories than can each be a column of their own.",
    "E-DATA-119": "A built-in table was named that does not exist.",
    "E-DATA-120": "The preprocessing that was saved with a model of tables is malformed.",
    "E-DATA-130": "A folder of images has no sub-folders, so nothing says which class an image has.",
    "E-DATA-131": "An idx file is not what its header says: damaged, cut short, or of another kind.",
    "E-DATA-132": "Files of images and of labels do not belong together: one is missing, or their counts differ.",
    "E-DATA-133": "The arrays of an .npz file are not recognised as images with labels, or hold other values.",
    "E-DATA-134": "A built-in set of images was named that does not exist.",
    "E-DATA-135": "The images have different sizes, and data.size does not say which one they should get.",
    "E-DATA-136": "Images of the validation or test set are also trained on, and data.split.leaks is refuse.",
    "E-DATA-137": "An image has more pixels than data.limits.max_pixels, and such images are refused.",
    "E-ENV-001": "No environment is registered under the id; the nearest ones are named.",
    "E-ENV-002": "Environments need the optional extra rl, which is not installed.",
    "E-ENV-003": "An environment gave an observation or a reward, or a policy an action, that is not finite.",
    "E-ENV-004": "An environment returned an observation that is not of the space that it declares.",
    "E-ENV-005": "An environment has observations or actions of a space that is not supported.",
    "E-ENV-006": "A policy gave actions that the environment does not have.",
    "E-ENV-007": "An environment is not deterministic, so that a run in it cannot be resumed.",
    "E-ENV-008": "An environment cannot be built: its options are wrong, or it needs another package.",
    "E-ENV-009": "An environment has no limit of steps, and none was given.",
    "E-ENV-010": "The method needs actions of another kind than the environment has.",
    "E-ENV-011": "An environment has no table of its transitions, so that nothing can be planned exactly.",
    "E-ENV-012": "A memory of steps is smaller than a batch or the warm-up that is to fill it.",
    "E-ENV-013": "A table of transitions is malformed; all faults are listed.",
    "E-ENV-014": "Exact planning was given a discount with which it finds no finite values.",
    "E-ENV-015": "A policy never ends its episode, so that its return has no value without a limit of steps.",
    "E-ENV-030": "A rollout is to be cut into more minibatches than it has rows.",
    "E-ENV-040": "A policy is to be measured over fewer than one episode.",
    "E-EVAL-001": "A metric was asked for that does not exist.",
    "E-EVAL-002": "A metric cannot be measured on the kind of data in these files.",
    "E-EVAL-003": "The loss of some targets is not finite: damaged weights or a diverged training.",
    "E-EVAL-004": "The files hold nothing that can be measured.",
    "E-EVAL-005": "A file for evaluation cannot be read, or too many of its rows are malformed.",
    "E-EVAL-020": "No row of the files has a text to predict from.",
    "E-EVAL-021": "A model that chooses among candidates was asked to predict from texts alone.",
    "E-EVAL-022": "A model without a task head was asked for predictions.",
    "E-EVAL-023": "Two models with heads of another kind or other labels were to be compared.",
    "E-EVAL-040": "There are no translations to measure, or not as many references as translations.",
    "E-EVAL-045": "The bound on the probability of some images is not finite: damaged weights or a diverged training.",
    "E-EVAL-046": "Generated images hold values that are not finite: damaged weights or a diverged training.",
    "E-EVAL-050": "Folds for cross-validation share rows between training and test, or lack them; all are listed.",
    "E-EVAL-051": "The folds of a cross-validation measured different metrics.",
    "E-EVAL-052": "Settings are to be chosen by a metric that none of them could be measured by.",
    "E-EVAL-053": "A learning curve asks for more training rows than a fold has, or for none.",
    "E-EVAL-054": "None of the training texts of a baseline has a word.",
    "E-EVAL-055": "The features for a baseline hold missing or infinite numbers.",
    "E-EVAL-060": "What a network's folder says of its data (preparation.json) is missing or malformed.",
    "E-EVAL-061": "A network that answers no rows was asked for predictions.",
    "E-EVAL-062": "A network was to be measured on what says nothing of it: files for a policy, episodes for others.",
    "E-EVAL-063": "An environment has other observations or actions than the policy that is to play in it.",
    "E-EVAL-064": "No row of the files is left to predict from; what was set aside is listed.",
    "E-EVAL-065": "A network was handed rows of another kind than it answers.",
    "E-FORMAT-001": "The tensors of a foreign model are not those that its own description needs; all are listed.",
    "E-FORMAT-002": "A foreign model has an architecture that is not supported; the supported ones are listed.",
    "E-FORMAT-003": "Fields of a foreign configuration are missing, out of limits, or ask for what is not built here.",
    "E-FORMAT-004": "A JSON or text file of a foreign model is missing, too large, too deep or malformed.",
    "E-FORMAT-005": "The weight files of a foreign model are missing, or contradict their index.",
    "E-FORMAT-006": "The weights of a foreign model are a pickle, which can run any program when opened.",
    "E-FORMAT-007": "A llama2.c checkpoint or its tokenizer file contradicts its own size.",
    "E-FORMAT-008": "The tokenizer of a foreign model is malformed, has too many ids, or names no end of text.",
    "E-FORMAT-010": "A model cannot be fetched from the Hugging Face hub.",
    "E-FORMAT-011": "A model would be written into a folder that holds other files.",
    "E-FORMAT-012": "A model has something that no architecture of the format to write can hold.",
    "E-FORMAT-030": "A GGUF file contradicts itself or its size: damaged, cut short, or made to mislead.",
    "E-FORMAT-031": "A file is no GGUF file, or one of a version or byte order that is not read.",
    "E-FORMAT-032": "A GGUF file holds a model of an architecture that is not read; the list is printed.",
    "E-FORMAT-033": "The metadata of a GGUF file lacks what the architecture needs, or says what it cannot have.",
    "E-FORMAT-034": "A tensor of a GGUF file has a type that is not read; those that are read are listed.",
    "E-FORMAT-035": "The tokenizer in a GGUF file cannot be turned into a tokenizer.json.",
    "E-FORMAT-036": "A model or its tokenizer cannot be written as a GGUF file without losing something.",
    "E-FORMAT-050": "An adapter folder lacks its description, or the description is malformed.",
    "E-FORMAT-051": "An adapter is of a kind that is not read: only LoRA, rsLoRA and DoRA in PEFT's layout are.",
    "E-FORMAT-052": "An adapter belongs to another base model: its digest, names or shapes differ.",
    "E-FORMAT-060": "A model cannot be written as an ONNX file: it is too large, or no fixed graph computes it.",
    "E-FORMAT-090": "A llama2.c checkpoint does not have exactly one tokenizer file beside it.",
    "E-FORMAT-091": "A foreign model brings no tokenizer.",
    "E-FORMAT-092": "There is nothing at the path that can be read as a model.",
    "E-FORMAT-093": "An adapter was to be imported without its base.",
    "E-FORMAT-094": "A format was asked for weights of a type that it cannot hold.",
    "E-FORMAT-095": "What was written and read again differs from its source by more than rounding; it was removed.",
    "E-FORMAT-096": "The target of an export or merge is there already.",
    "E-FORMAT-097": "A base was named for the import of a whole model.",
    "E-GEN-001": "A generation option (temperature, top_k, top_p and so on) is unknown or outside its range.",
    "E-GEN-002": "The prompt has no tokens.",
    "E-GEN-003": "The prompt is longer than the model's context.",
    "E-GEN-004": "The model's output is not finite: damaged weights or a diverged training.",
    "E-GEN-005": "The prompt holds token ids that the model does not know.",
    "E-GEN-006": "Stop texts were given where only ids are generated.",
    "E-GEN-007": "The model has no chat template.",
    "E-GEN-008": "A model that writes no text was asked to write.",
    "E-GEN-020": "A source to translate has no tokens, too many for the model, or ones that it does not know.",
    "E-GEN-030": "A network that is no language model was asked for text.",
    "E-GEN-031": "A model that draws no images was asked for some.",
    "E-GEN-032": "Images were asked for with a label, a number or options that do not fit the network.",
    "E-GEN-033": "Images cannot be written where they were to go: another kind of file, or a folder in use.",
    "E-MACHINE-001": "The recipe or the command names a device that torch does not find on this machine.",
    "E-MACHINE-002": "The precision asked for is not one of auto, float32 and bfloat16.",
    "E-MACHINE-900": "The operating system refused what was asked: no space, no permission, no such path.",
    "E-MACHINE-901": "A Python package that this verb needs is not installed in the environment.",
    "E-MODEL-001": "A file beside the weights (model.json, tokenizer.json, chat.json) is missing or malformed.",
    "E-MODEL-002": "model.json names a model family that this version cannot build.",
    "E-MODEL-003": "The weights, the tokenizer and the chat template in a model folder do not belong together.",
    "E-MODEL-004": "There is no run, checkpoint or model at the path that was given as MODEL.",
    "E-MODEL-005": "The base that a model's adapters belong to is missing or has changed.",
    "E-MODEL-006": "The model to go on with, or to use, is of another kind than the data.",
    "E-MODEL-007": "The model to go on with reads inputs of another shape.",
    "E-MODEL-008": "A network cannot be built with these sizes for this data.",
    "E-MODEL-010": "The head of a model reads the first token of a decoder, which sees nothing of the text after it.",
    "E-MODEL-100": "Options of a network cannot work with one another or with the shape of the data; all are listed.",
    "E-MODEL-101": "Batch normalisation was to train on a batch of one row.",
    "E-MODEL-102": "A sequence has a length that its row does not have.",
    "E-MODEL-103": "A row for a recurrent network holds several documents, or padding before its end.",
    "E-MODEL-135": "A soft actor-critic was to choose discrete actions, or to act without bounds.",
    "E-MODEL-136": "A policy gives numbers that are not finite, so that no action can be drawn.",
    "E-MODEL-140": "The input of a network that draws images is not an image of channels, height and width.",
    "E-MODEL-141": "The sides of the images cannot be halved as often as the network halves them.",
    "E-MODEL-142": "A network is to be told labels, and the data have fewer than two.",
    "E-MODEL-143": "An image was asked for of a label that the generator does not know.",
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
    "E-RECIPE-041": "Parameter groups of an optimizer match no trainable parameter.",
    "E-RECIPE-043": "An encoder was to predict the next token.",
    "E-RECIPE-044": "A token is to go through more experts than there are.",
    "E-RECIPE-045": "Adapters are named for a model that starts from nothing.",
    "E-RECIPE-046": "A quantized base stands in the wrong place among the adapters, or alone.",
    "E-RECIPE-047": "The objective does not fit the data.",
    "E-RECIPE-048": "A learned prompt is asked for on running text.",
    "E-RECIPE-050": "The head of the model is of another kind than the one that the objective trains.",
    "E-RECIPE-051": "Weights of labels are given for labels that the head does not have.",
    "E-RECIPE-052": "Balanced class weights were asked for, but some labels have no training data.",
    "E-RECIPE-060": "An L1 penalty was asked for, but no trainable parameter takes it.",
    "E-RECIPE-065": "The network does not read this kind of data.",
    "E-RECIPE-066": "Experience is collected in a way that the objective cannot learn from.",
    "E-RECIPE-067": "A rollout is not divided evenly by its minibatches.",
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
    "E-RUN-040": "The learning-rate test found no rate at which the loss falls.",
    "E-RUN-060": "Pixels lie outside 0 to 1, where the objective needs them.",
    "E-RUN-061": "The critic's gradient is to be penalised, and it normalises over the batch.",
    "E-RUN-062": "Rows have no label, and a conditional generator is to be told it.",
    "E-RUN-900": "An unforeseen case: a fault in groundup itself. --debug shows the traceback to report.",
    "E-RUN-901": "The machine's memory was used up; `groundup plan` says what fits.",
    "E-TOKEN-001": "A tokenizer option is missing, out of range, or does not belong to that kind of tokenizer.",
    "E-TOKEN-002": "The text is too small for the vocabulary asked for.",
    "E-TOKEN-003": "There is no text to train a tokenizer on.",
    "E-TOKEN-004": "A text holds a lone surrogate, which has no bytes in UTF-8.",
    "E-TOKEN-005": "There is no tokenizer.json to read.",
    "E-TOKEN-006": "A tokenizer.json is malformed, could run without end, or would change text in silence.",
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
    "E-USE-040": "A verb for language models was given a network of another kind.",
    "E-USE-041": "Flags do not fit the kind of model or of data that they were given for, or one another.",
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
