// The photo that a dream begins with: made smaller here, without what else its file says, and sent once it is chosen.
// Without this script the file is sent as it is, together with the form.

const LONGEST_SIDE = 1536; // pixels, twice the largest picture
const MOST_BYTES = 8 * 2 ** 20; // as in dreams/photos.py

const form = document.getElementById("wish");
const input = document.getElementById("id_photo");
const error = document.getElementById("photo-error");

input.addEventListener("change", async () => {
  const [file] = input.files;
  error.hidden = true;
  if (!file) return;
  const small = await smaller(file).catch(() => file); // the server says what is wrong with it
  if (small.size > MOST_BYTES) {
    error.textContent = `The photo must be at most ${MOST_BYTES / 2 ** 20} MB.`;
    error.hidden = false;
    input.value = "";
    return;
  }
  const transfer = new DataTransfer();
  transfer.items.add(small);
  input.files = transfer.files;
  form.requestSubmit(document.getElementById("send"));
});

async function smaller(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = Object.assign(document.createElement("canvas"), {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; // where it is transparent, as the server has it
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  return new File([blob], "photo.jpg", { type: "image/jpeg" });
}
