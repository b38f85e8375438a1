from __future__ import annotations

import pytest

from blip2cli.storage.secrets import hide_secrets


def test_secrets_are_hidden_anywhere() -> None:
    assert hide_secrets("s3://key:s3cr3t@b/k") == "s3://key:***@b/k"
    assert hide_secrets("s3://key:s/cr/3t@b/k") == "s3://key:***@b/k"
    assert hide_secrets("https://h/k.png?sig=s3cr3t&x=1") == "https://h/k.png?***"
    assert (
        hide_secrets("404, url='https://h/k?sig=x', tried") == "404, url='https://h/k?***', tried"
    )
    for harmless in ("s3://b/a?.png", "hf://datasets/u/r@main/k", "http://h:80/k", "s3://b/a:b"):
        assert hide_secrets(harmless) == harmless


@pytest.mark.parametrize(
    "text",
    [
        "http://me:s3cr3t@h/x.png",
        "http://me:s3/cr3t@h/x.png could not be read",
        "https://s3cr3t@h/x.png",
        "GET /x.png?id=1&X-Amz-Signature=s3cr3t&y=1 failed",
        "access_token=s3cr3t",
        "{'Authorization': 'Bearer s3cr3t'}",
        "the token hf_s3cr3ts3cr3ts3cr3ts3cr3t is invalid",
        "[https://h/k?s3cr3t]",
    ],
)
def test_secrets_of_all_kinds(text: str) -> None:
    assert "s3cr3t" not in hide_secrets(text)


def test_values_of_variables_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "oddly shaped")
    assert hide_secrets("with oddly shaped in it") == "with *** in it"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a")
    assert hide_secrets("a short one is no secret") == "a short one is no secret"
