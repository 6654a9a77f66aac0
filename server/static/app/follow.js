// How a job is watched to its end: its event stream, read with fetch; and by asking, where streams do not come through.

import { getJson, parseJson, pause, Problem, request } from "./api.js";
import { eventsPath, jobPath } from "./paths.js";

const ENDS = new Set(["done", "failed", "cancelled", "dead"]);
const FIRST_SILENCE_MS = 10_000; // the server sends the newest snapshot at once
const SILENCE_MS = 40_000; // and a sign of life every 15 s
const TRIES_BEFORE_ASKING = 2;

export const isOver = (job) => ENDS.has(job.status);

/**
 * Every newer state of the job, until it is over; the last one is the whole job.
 * `onConnection(isConnected)` tells when the line is lost and when it is back.
 */
export async function* follow(job, { signal, onConnection }) {
  let failures = 0;
  while (!isOver(job)) {
    try {
      for await (const snapshot of snapshots(eventsPath(job.id), signal)) {
        failures = 0;
        onConnection(true);
        job = { ...job, ...snapshot };
        if (isOver(job)) break;
        yield job;
      }
      if (!isOver(job)) throw new Error("the stream ended before the job did");
    } catch (error) {
      if (signal.aborted || isFinal(error)) throw error;
      failures += 1;
      if (failures >= TRIES_BEFORE_ASKING) {
        const asked = await getJson(jobPath(job.id), { signal }).catch((reason) => {
          if (signal.aborted || isFinal(reason)) throw reason;
          return null;
        });
        onConnection(asked !== null);
        if (asked && isOver(asked)) return void (yield asked);
        if (asked) yield (job = { ...job, ...asked });
      } else {
        onConnection(false);
      }
      await pause(failures, signal);
    }
  }
  yield await wholeJob(job, { signal, onConnection });
}

async function wholeJob(job, { signal, onConnection }) {
  for (let tries = 1; ; tries++) {
    try {
      const whole = await getJson(jobPath(job.id), { signal });
      onConnection(true);
      return whole;
    } catch (error) {
      if (signal.aborted || isFinal(error)) throw error;
      onConnection(false);
      await pause(tries, signal);
    }
  }
}

// 4xx will say the same again; a busy or restarting server will not.
const isFinal = (error) => error instanceof Problem && error.status < 500;

async function* snapshots(path, signal) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), FIRST_SILENCE_MS);
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  try {
    const either = AbortSignal.any([signal, silence.signal]);
    const response = await request(path, { signal: either, headers: { Accept: "text/event-stream" } });
    for await (const message of messages(response.body, heard)) {
      if (message.event === "snapshot") yield parseJson(message.data);
    }
  } finally {
    clearTimeout(timer);
    silence.abort(); // hangs up, if the reader stops
  }
}

/** Server-sent events out of a stream of bytes (WHATWG HTML, section 9.2.6), as far as this server uses them. */
async function* messages(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const message = { event: "message", data: "" };
      for (const line of block.split("\n")) {
        const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
        if (field === "data") message.data += (message.data && "\n") + text;
        else if (field === "event") message.event = text;
      }
      if (message.data) yield message;
    }
  }
}
