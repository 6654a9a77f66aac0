// The models that the server offers, as GET /v1/models lists them.

import { getJson } from "./api.js";

let models = [];

/** Ask the server for them. */
export async function prepare() {
  const { data } = await getJson("v1/models");
  // Other names of the default model are for OpenAI's clients.
  models = data.filter((model, index) => index === 0 || !model.is_default);
}

/** All of them, the default one first. */
export const all = () => models;

/** The model of this name; the default one if there is none. */
export const find = (name) => models.find((model) => model.id === name) ?? models[0];

/** What a request says to be drawn by this model: nothing for the default one. */
export const nameFor = (id) => (find(id)?.is_default ? "" : find(id).id);
