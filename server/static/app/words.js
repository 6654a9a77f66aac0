// Durations, counts and file sizes in words.

export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const about = (seconds) => (seconds < 1 ? duration(seconds) : `about ${duration(seconds)}`);

export const exactly = (seconds) => `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;

export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export function fileSize(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A job in words. What was only enlarged has no prompt. */
export const titleOf = ({ prompt, upscaler }) => (upscaler ? "Enlarged picture" : prompt);
