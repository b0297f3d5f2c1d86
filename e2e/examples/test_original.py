"""The list of the original's commands."""

import original
import pytest


def test_each_command_has_a_word_that_says_what_must_come_of_it():
    text = "# comment\n\nserved   a b\nrefused  c => d\n"
    assert original.commands(text) == [("served", "a b"), ("refused", "c => d")]


def test_an_unknown_word_is_named():
    with pytest.raises(ValueError, match="'severed' is none of"):
        original.commands("severed a b")


def test_the_list_reads_and_every_refusal_says_why():
    found = original.commands(original.LIST.read_text(encoding="utf-8"))
    assert len(found) > 40
    assert all(" => " in command for kind, command in found if kind == "refused")
