// Asks a model with the official client: client.mjs BASE_URL KEY MODEL. Ends with an error if an answer is wrong.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];

const names = [];
for await (const m of client.models.list()) names.push(m.id);
assert(names.includes(model), names.join());

const whole = await client.chat.completions.create({ model, messages, max_tokens: 8, ignore_eos: true });
assert.equal(whole.usage.completion_tokens, 8);
assert.equal(whole.choices[0].finish_reason, "length");

let text = "", usage;
const stream = await client.chat.completions.create({ model, messages, max_tokens: 8, ignore_eos: true, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.completion_tokens, 8);

const types = [];
for await (const event of await client.responses.create({ model, input: "hello", max_output_tokens: 16, stream: true })) types.push(event.type);
assert.equal(types[0], "response.created");
assert(["response.completed", "response.incomplete"].includes(types.at(-1)), types.at(-1));

await assert.rejects(client.chat.completions.create({ model: "nobody", messages }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ model, messages: [] }), OpenAI.BadRequestError);
console.log("the official client is satisfied");
