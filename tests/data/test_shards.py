"""Token shards: what is written comes back; what was changed, lost, swapped or forged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from groundup.data.files import digest_of
from groundup.data.shards import TokenSet, token_dtype, write_token_folder
from groundup.errors import GroundupError

DOCUMENTS = [([1, 5, 6, 2], 3), ([1, 2], 0), ([1, 7, 2], 9), ([1, 8, 8, 8, 2], 4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_token_folder(
        tmp_path, {"train": DOCUMENTS, "held_out": []}, tokenizer_digest="abc", vocabulary=10, tokens_per_shard=5
    )
    return tmp_path


def refused(folder: Path, code: str = "E-DATA-004", **options: object) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        TokenSet.open(folder, "train", **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.where and caught.value.why and caught.value.fix
    return caught.value


def test_what_is_written_comes_back(folder: Path) -> None:
    tokens = TokenSet.open(folder, "train", tokenizer_digest="abc")
    assert [tokens.document(i).tolist() for i in range(tokens.num_documents)] == [ids for ids, _ in DOCUMENTS]
    assert tokens.lengths.tolist() == [4, 2, 3, 5] and tokens.lengths.dtype == np.int64
    assert tokens.document_bytes.tolist() == [3, 0, 9, 4]
    assert (tokens.num_tokens, tokens.num_bytes, tokens.vocabulary) == (14, 16, 10)
    assert not tokens.document(0).flags.writeable and tokens.document(0).base is not None
    assert TokenSet.open(folder, "held_out").num_documents == 0


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    write_token_folder(tmp_path, {"train": [([70_000, 2], 1)]}, tokenizer_digest="x", vocabulary=70_001)
    assert TokenSet.open(tmp_path, "train").document(0).tolist() == [70_000, 2]
    assert token_dtype(1 << 16).itemsize == 2 and token_dtype((1 << 16) + 1).itemsize == 4


def test_ids_outside_the_vocabulary_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside"):
        write_token_folder(tmp_path, {"train": [([10], 1)]}, tokenizer_digest="x", vocabulary=10)


def test_D6_changed_shard_is_refused_by_name(folder: Path) -> None:
    path = folder / "train-00001.tokens"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert "train-00001.tokens" in refused(folder).what
    opened = TokenSet.open(folder, "train", trust_changed=True)
    assert opened.num_documents == 4 and "train-00001.tokens" in opened.changes[0]
    assert opened.digest != TokenSet.open(folder, "train", verify=False).digest


def test_D6_missing_shard_is_refused_by_name(folder: Path) -> None:
    (folder / "train-00000.documents").unlink()
    assert "train-00000.documents is missing" in refused(folder).what
    left = TokenSet.open(folder, "train", trust_changed=True)
    assert left.num_documents == 2 and "left out" in left.changes[0]


def test_D6_truncated_shard_is_refused_even_without_hashing(folder: Path) -> None:
    path = folder / "train-00000.tokens"
    path.write_bytes(path.read_bytes()[:-2])
    assert "bytes, expected" in refused(folder, verify=False).what


def test_D6_swapped_shards_are_refused(tmp_path: Path) -> None:
    same_size = [([1, 5, 2], 1), ([1, 6, 2], 1)]
    write_token_folder(tmp_path, {"train": same_size}, tokenizer_digest="x", vocabulary=9, tokens_per_shard=3)
    first, second = tmp_path / "train-00000.tokens", tmp_path / "train-00001.tokens"
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert "train-00000.tokens" in refused(tmp_path).what


def test_D6_reordered_index_is_refused(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["splits"]["train"].reverse()
    (folder / "index.json").write_text(json.dumps(index))
    assert "reordered" in refused(folder).what


def test_T4_other_tokenizer_is_refused_with_both_hashes(folder: Path) -> None:
    error = refused(folder, "E-DATA-016", tokenizer_digest="xyz")
    assert "abc" in error.where and "xyz" in error.where and "groundup prepare" in error.fix


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocabulary", 1 << 60),
        ("vocabulary", "many"),
        ("dtype", "float64"),
        ("schema", 99),
        ("splits", None),
        ("splits", {"train": [{"name": "../../etc/passwd"}]}),
        ("tokenizer", 3),
    ],
)
def test_a_lying_index_is_a_typed_error(folder: Path, field: str, value: object) -> None:
    index = json.loads((folder / "index.json").read_text())
    index[field] = value
    (folder / "index.json").write_text(json.dumps(index))
    assert refused(folder, "E-DATA-005").exit_code == 1


def test_counts_beyond_the_file_are_refused_before_mapping(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["splits"]["train"][0]["tokens"] = 1 << 50
    del index["digest"]
    index["digest"] = digest_of(index)
    (folder / "index.json").write_text(json.dumps(index))
    assert "expected" in refused(folder).what


def test_forged_offsets_are_refused(folder: Path) -> None:
    path = folder / "train-00000.documents"
    pairs = np.fromfile(path, dtype="<i8").reshape(-1, 2)
    pairs[0, 0] = 1 << 40
    pairs.tofile(path)
    refused(folder)
    assert "offsets" in TokenSet.open(folder, "train", trust_changed=True).changes[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_an_unreadable_index_is_a_typed_error(folder: Path, content: bytes) -> None:
    (folder / "index.json").write_bytes(content)
    refused(folder, "E-DATA-005")


def test_a_folder_without_index_is_not_prepared_data(tmp_path: Path) -> None:
    refused(tmp_path, "E-DATA-005")


def test_an_unknown_split_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(GroundupError) as caught:
        TokenSet.open(folder, "test")
    assert "held_out" in caught.value.why
