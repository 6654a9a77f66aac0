// The form that draws over a part of a picture: hands what was painted to the form's file field. Without this script a
// mask can be chosen as a file.

const form = document.getElementById("wish");
const host = document.getElementById("painter");
const field = document.getElementById("mask-field");
const unmarked = document.getElementById("unmarked");

field.hidden = true;
const input = field.querySelector("input");
input.required = false;

// Under the name that its content has given it.
const { makePainter } = await import(host.dataset.script);
const painter = makePainter(host, () => (unmarked.hidden = true));
await painter.show(host.dataset.picture);
if (host.dataset.mask) await painter.use(await (await fetch(host.dataset.mask)).blob());

let isHandedOver = false;

// Before the form's own listeners: for them a form that has no mask yet was not sent.
form.addEventListener("submit", handOver, { capture: true });
addEventListener("pageshow", () => (isHandedOver = false));

async function handOver(event) {
  if (isHandedOver || event.submitter?.name === "show") return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const mask = await painter.mask();
  unmarked.hidden = mask !== null;
  if (!mask) return;
  const transfer = new DataTransfer();
  transfer.items.add(new File([mask], "mask.png", { type: "image/png" }));
  input.files = transfer.files;
  isHandedOver = true;
  form.requestSubmit(document.getElementById("send"));
}
