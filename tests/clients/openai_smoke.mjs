// OpenAI's own JavaScript SDK against the server: arguments are its address and a picture file. Prints what came, as JSON.
import fs from "node:fs";
import OpenAI, { toFile } from "openai";

const [, , url, picture] = process.argv;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const model = "gpt-image-1";

const drawn = await client.images.generate({ model, prompt: "a cat", n: 2, size: "64x64", seed: 3, steps: 2 });
const image = await toFile(fs.createReadStream(picture), null, { type: "image/png" });
const edited = await client.images.edit({ model, image, prompt: "a hat" });
const events = [];
const stream = await client.images.generate({ model, prompt: "a cat", stream: true, partial_images: 1, steps: 28 });
for await (const event of stream) events.push(event.type);
const models = [];
for await (const entry of client.models.list()) models.push(entry.id);
let refused = null;
try {
  await client.images.generate({ model, prompt: "a cat", colour: "red" });
} catch (error) {
  refused = [error.constructor.name, error.status, error.code, error.param];
}
console.log(
  JSON.stringify({ drawn: drawn.data.map((entry) => entry.b64_json), size: edited.size, events, models, refused }),
);
