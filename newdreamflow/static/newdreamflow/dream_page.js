// A dream's page while it is drawn: follows its events, or asks again and again where events do not come through.

const FIRST_NEWS_MS = 5_000; // the server says at once how it is
const LONG_SILENCE_MS = 20_000; // after which a line that looks open may be dead: ask
const ASK_MS = 1_000;
const SLOWEST_ASK_MS = 5_000;

const dream = document.getElementById("dream");
if (dream.dataset.events) follow(dream);

function follow(dream) {
  const words = document.getElementById("words");
  const bar = document.getElementById("bar");
  const connection = document.getElementById("connection");
  const told = document.getElementById("told");
  const title = document.querySelector("#about h1").textContent;
  const frames = [...dream.querySelectorAll(".frame")];

  let isOver = false;
  let isAsking = false;
  let failures = 0;
  let lastTold = "";
  let timer = setTimeout(ask, FIRST_NEWS_MS);

  const source = new EventSource(dream.dataset.events);
  source.addEventListener("snapshot", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", ask); // unless it was refused, the browser connects again by itself
  addEventListener("online", ask);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && ask());
  addEventListener("pageshow", (event) => event.persisted && location.reload());

  async function ask() {
    if (isAsking || isOver) return;
    isAsking = true;
    clearTimeout(timer);
    try {
      const response = await fetch(dream.dataset.progress, { headers: { Accept: "application/json" }, cache: "no-store" });
      if (response.status >= 400 && response.status < 500) return void location.reload(); // signed out, or deleted
      if (!response.ok) throw new Error(response.statusText);
      failures = 0;
      show(await response.json());
    } catch {
      failures += 1;
      connection.hidden = false;
      again();
    } finally {
      isAsking = false;
    }
  }

  function again() {
    clearTimeout(timer);
    const pause = Math.min(ASK_MS * 2 ** failures, SLOWEST_ASK_MS);
    timer = setTimeout(ask, source.readyState === EventSource.OPEN ? LONG_SILENCE_MS : pause);
  }

  function show(snapshot) {
    if (isOver) return;
    connection.hidden = true;
    again();
    words.textContent = snapshot.words;
    words.classList.toggle("trouble", Boolean(snapshot.trouble));
    if (snapshot.step) {
      bar.max = snapshot.steps;
      bar.value = snapshot.step;
    } else {
      bar.removeAttribute("value");
    }
    if (snapshot.preview) showPreview(snapshot.preview);
    const share = snapshot.step / snapshot.steps;
    document.title = `${snapshot.step ? `${Math.round(100 * share)} %` : snapshot.words} · ${title}`;
    tell(snapshot, share);
    if (snapshot.is_finished) finish(snapshot);
  }

  // Not every step: a screen reader would never come to an end.
  function tell(snapshot, share) {
    const news = snapshot.trouble || `${snapshot.status} ${Math.floor(share * 4)}`;
    if (news !== lastTold) told.textContent = snapshot.words;
    lastTold = news;
  }

  function showPreview(address) {
    let preview = frames[0].querySelector(".preview");
    if (!preview) {
      preview = new Image();
      preview.className = "preview";
      preview.alt = "";
      frames[0].append(preview);
    }
    preview.src = address;
  }

  async function finish(snapshot) {
    isOver = true;
    clearTimeout(timer);
    source.close();
    if (snapshot.status === "deleted") return void location.replace(dream.dataset.gone);
    try {
      const pictures = await Promise.all(snapshot.pictures.map(hang)); // first of all the pictures
      const page = await fetch(location.href, { cache: "no-store" });
      const fresh = new DOMParser().parseFromString(await page.text(), "text/html");
      const finished = fresh.getElementById("dream");
      finished.querySelectorAll(".picture").forEach((picture, index) => {
        pictures[index].alt = picture.alt;
        pictures[index].classList.add("hung"); // it has appeared already
        picture.replaceWith(pictures[index]); // the one that is on the screen already
      });
      const hadFocus = dream.contains(document.activeElement);
      dream.replaceWith(document.adoptNode(finished));
      document.title = fresh.title;
      if (hadFocus) document.getElementById("words").focus();
    } catch {
      location.reload();
    }
  }

  /** Show a finished picture in its frame as soon as it can be shown whole. */
  async function hang(picture, index) {
    const canvas = frames[index].querySelector(".canvas");
    const image = new Image(canvas.width.baseVal.value, canvas.height.baseVal.value);
    image.className = "picture";
    image.alt = title;
    image.src = picture.url;
    await image.decode();
    frames[index].replaceChildren(image);
    return image;
  }
}
