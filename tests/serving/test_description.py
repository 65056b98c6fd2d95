"""The OpenAPI description against the server: schemathesis sends what it allows and what it does not, with all of its
checks and no filter."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from house import caller, house
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode

from groundup.serving import description
from groundup.serving.specimen import Specimen

APP = house(Specimen(context=256), allowed_hosts=("testserver",))


def schema(*modes: GenerationMode, coverage: bool = False) -> Any:
    config = schemathesis.Config.from_dict({"phases": {"coverage": {"enabled": coverage}}})
    config.projects.default.generation.modes = list(modes)
    return schemathesis.openapi.from_asgi("/openapi.json", APP, config=config)


def tried(examples: int) -> Any:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@schema(GenerationMode.POSITIVE).parametrize()
@tried(3)
def test_what_the_description_allows(case: schemathesis.Case) -> None:
    case.call_and_validate()


@schema(GenerationMode.NEGATIVE).parametrize()
@tried(3)
def test_what_the_description_forbids(case: schemathesis.Case) -> None:
    case.call_and_validate()


@pytest.mark.slow
@schema(GenerationMode.POSITIVE, GenerationMode.NEGATIVE, coverage=True).parametrize()
@tried(200)
def test_every_boundary_of_the_description_and_much_beside(case: schemathesis.Case) -> None:
    case.call_and_validate()


def test_every_route_and_status_is_described() -> None:
    found = caller().get("/openapi.json").json()
    assert set(found["paths"]) == {
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/classify", "/v1/models", "/v1/models/{name}",
        "/tokenize", "/detokenize", "/health", "/ready", "/metrics", "/conformance",
    }  # fmt: skip
    for path in found["paths"].values():
        for operation in path.values():
            statuses = set(operation["responses"])
            assert {"200", "400", "401", "403", "500"} <= statuses and "422" not in statuses
            for status, response in operation["responses"].items():
                if status != "200":
                    reference = response["content"]["application/json"]["schema"]["$ref"]
                    assert reference == description.REFERENCE.format(model="Error")


def test_a_key_is_part_of_the_description_where_one_is_needed() -> None:
    assert "security" not in caller().get("/openapi.json").json()
    key = "k" * 20
    keyed = caller(keys=(key,)).get("/openapi.json", headers={"authorization": f"Bearer {key}"}).json()
    assert keyed["security"] == [{"key": []}] and keyed["paths"]["/health"]["get"]["security"] == []
