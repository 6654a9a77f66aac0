// The API key: asked for when the server wants one, kept for this tab alone, forgotten on request.

import { storageName } from "./paths.js";

const NAME = storageName("api-key");

const part = (id) => document.getElementById(id);
let asking = null; // the promise of an answer, for all requests that wait for it
let isDeclined = false;

export const current = () => sessionStorage.getItem(NAME);

/**
 * The server did not take `refused`, for the reason `why`. Resolves to whether there is another key now: the caller
 * then tries again. After a refusal the user is not asked again until `mayAskAgain`.
 */
export async function another(refused, why) {
  if (current() !== refused) return true; // asked for another request meanwhile
  sessionStorage.removeItem(NAME);
  asking ??= isDeclined ? Promise.resolve(false) : ask(why);
  const isThere = await asking;
  asking = null;
  isDeclined = !isThere;
  showButton();
  return isThere;
}

export function mayAskAgain() {
  isDeclined = false;
}

function ask(why) {
  const forPeople = why.replace(/: send it in the header.*/, ""); // that is this page's work
  part("key-field-error").textContent = `${forPeople[0].toUpperCase()}${forPeople.slice(1)}.`;
  part("key-field").value = "";
  part("key-dialog").showModal();
  return new Promise((resolve) => {
    part("key-dialog").addEventListener("close", () => resolve(current() !== null), { once: true });
  });
}

function showButton() {
  part("key-button").textContent = current() ? "Forget the API key" : "Enter an API key";
  part("key-button").hidden = !current() && !isDeclined;
}

export function start() {
  part("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(NAME, part("key-field").value.trim());
    part("key-dialog").close();
  });
  part("key-not-now").addEventListener("click", () => part("key-dialog").close());
  // Begins anew either way: what a key has shown goes with it, and without one the server is asked and asks.
  part("key-button").addEventListener("click", () => {
    sessionStorage.removeItem(NAME);
    location.reload();
  });
  showButton();
}
