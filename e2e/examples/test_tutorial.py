"""Which commands a tutorial's text gives."""

import pytest
import tutorial


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("nothing but `a.py` and words", []),
        ("run `clearml-serving list` now", ["clearml-serving list"]),
        ("run `clearml-serving` alone", []),
        ("`clearml-serving model\n   list`", ["clearml-serving model list"]),
        ("```\npython3 a.py\n\ncurl x\n```", ["python3 a.py", "curl x"]),
        ("```bash\ncurl x \\\n  -d '{\"a\": 1}'\n```\n", ["curl x    -d '{\"a\": 1}'"]),
        ('```\n{"y":[1]}\n```', []),
        ("```\na\n```\n`clearml-serving list`\n```\nb\n```", ["clearml-serving list"]),
    ],
)
def test_commands_are_found_in_blocks_and_in_inline_code(text, wanted):
    assert [command.text for command in tutorial.commands(text)] == wanted


def test_the_answer_belongs_to_the_request_before_it():
    first, second = tutorial.commands(
        '```\ncurl x\n```\n\nIt answers `{"y":1}`.\n\n`curl y` It answers some.'
    )
    assert (first.answer, second.answer) == ('{"y":1}', None)


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ('clearml-serving create --name "a b"', "create"),
        ("clearml-serving --id 1 model add --engine custom", "model add"),
        ("clearml-serving model list", "model list"),
        ("python3 a.py", ""),
    ],
)
def test_the_verb_of_a_command(text, verb):
    assert tutorial.Command(text, 1).verb() == verb


def test_a_flag_is_followed_by_its_word():
    command = tutorial.Command('clearml-serving --id <service_id> model add --endpoint "a b"', 1)
    assert (command.flag("--endpoint"), command.flag("--name")) == ("a b", None)


@pytest.mark.parametrize(
    ("text", "wanted"), [('eval "$(x)"', True), ("clearml-serving up &", True), ("a b", False)]
)
def test_starting_a_service_is_set_up(text, wanted):
    assert tutorial.Command(text, 1).is_set_up is wanted
