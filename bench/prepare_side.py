"""One side of the preparation bench: `python prepare_side.py ours|bare ROWS OUT`; see sides.py. Both encode with the
same tokenizer, of 4,096 entries, trained on the first rows. `most` is the peak of the largest process, in bytes."""

from __future__ import annotations

import itertools
import json
import resource
import sys
from pathlib import Path
from typing import Any

from sides import serve

TRAINED_ON, BATCH = 5000, 1000


def main() -> None:
    import tokenizers

    from groundup.data.options import PrepareOptions
    from groundup.data.prepare import prepare
    from groundup.text.options import TokenizerOptions
    from groundup.text.train import train_tokenizer

    kind, rows, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    with rows.open(encoding="utf-8") as file:
        first = [json.loads(line)["text"] for line in itertools.islice(file, TRAINED_ON)]
    tokenizer = train_tokenizer(first, TokenizerOptions(kind="bpe", vocabulary=4096))
    bare = tokenizers.Tokenizer.from_str(tokenizer.to_json())

    def work(piece: dict[str, Any]) -> dict[str, Any]:
        if kind == "ours":
            options = PrepareOptions(files=[str(rows)], deduplicate={"exact": True, "near": True})  # type: ignore[arg-type]
            prepare(options, tokenizer, out, workers=0)
        else:
            with rows.open(encoding="utf-8") as file:
                while batch := [json.loads(line)["text"] for line in itertools.islice(file, BATCH)]:
                    bare.encode_batch(batch, add_special_tokens=False)
        peaks = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return {"most": max(peaks)}

    serve(work)


if __name__ == "__main__":
    main()
