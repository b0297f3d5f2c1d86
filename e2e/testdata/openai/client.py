"""Asks a model with the official client: client.py BASE_URL KEY MODEL. A wrong answer is an error."""

import sys

import openai

base, key, model = sys.argv[1:4]
client = openai.OpenAI(base_url=base, api_key=key, max_retries=0)
HELLO = [{"role": "user", "content": "hello"}]
FOREVER = {"ignore_eos": True}
LONG = [{"role": "user", "content": "a " * 9000}]

assert model in [m.id for m in client.models.list()], client.models.list()
assert client.models.retrieve(model).id == model

whole = client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, extra_body=FOREVER)
assert whole.choices[0].finish_reason == "length" and whole.choices[0].message.role == "assistant"
assert whole.usage.completion_tokens == 8 and whole.usage.prompt_tokens > 0

chunks = list(
    client.chat.completions.create(
        model=model,
        messages=HELLO,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=FOREVER,
    )
)
assert chunks[-1].usage.completion_tokens == 8 and chunks[-1].choices == [], chunks[-1]
assert chunks[-2].choices[0].finish_reason == "length", chunks[-2]
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == whole.choices[0].message.content, (text, whole)
plain = list(
    client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, stream=True, extra_body=FOREVER)
)
assert all(c.choices for c in plain), plain

completion = client.completions.create(model=model, prompt="hello", max_tokens=4, extra_body=FOREVER)
assert completion.usage.completion_tokens == 4 and completion.choices[0].finish_reason == "length"

response = client.responses.create(model=model, input="hello", max_output_tokens=16, extra_body=FOREVER)
assert response.output[0].type == "message" and response.status in ("completed", "incomplete")
assert response.output_text == response.output[0].content[0].text
assert response.usage.output_tokens == 16 or response.status == "completed", response
events = list(client.responses.create(model=model, input="hello", max_output_tokens=16, stream=True))
assert [e.type for e in events[:2]] == ["response.created", "response.in_progress"], events
last = events[-1]
assert last.type in ("response.completed", "response.incomplete") and last.response.usage.output_tokens > 0
deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
assert deltas == events[-1].response.output_text, (deltas, events[-1])
assert [e.sequence_number for e in events] == list(range(len(events)))

forced = client.chat.completions.create(
    model=model,
    messages=HELLO,
    tool_choice="required",
    max_tokens=200,
    tools=[
        {
            "type": "function",
            "function": {
                "name": "greet",
                "parameters": {
                    "type": "object",
                    "properties": {"loud": {"type": "boolean"}},
                    "required": ["loud"],
                    "additionalProperties": False,
                },
            },
        }
    ],
)
assert forced.choices[0].finish_reason in ("tool_calls", "length"), forced

for error, ask in (
    (openai.NotFoundError, lambda: client.chat.completions.create(model="nobody", messages=HELLO)),
    (openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=[])),
    (
        openai.BadRequestError,
        lambda: client.responses.create(model=model, input="a", previous_response_id="resp_1"),
    ),
    (
        openai.BadRequestError,
        lambda: client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "a " * 9000}]
        ),
    ),
):
    try:
        ask()
    except error as told:
        assert told.body["message"] and told.body["type"], told.body
    else:
        raise AssertionError(error)
if key != "none":
    try:
        openai.OpenAI(base_url=base, api_key="csk_wrong", max_retries=0).models.list()
    except openai.AuthenticationError as told:
        assert told.code == "invalid_api_key", told.body
    else:
        raise AssertionError("a wrong key")
print("the official client is satisfied")
