// Where the API is, seen from this page: relative, so that it works under any path prefix that a proxy strips.

/** The folder of this page; the API is below it. */
export const FOLDER = new URL(".", location.href);

export const JOBS = "v1/jobs";
export const UPSCALE = "v1/upscale";

// Not the links of the job itself: they begin at the server's root, where the proxy's prefix is missing.
export const jobPath = (id) => `${JOBS}/${encodeURIComponent(id)}`;
export const eventsPath = (id) => `${jobPath(id)}/events`;
export const cancelPath = (id) => `${jobPath(id)}/cancel`;
export const picturePath = (id, index) => `${jobPath(id)}/images/${index}`;
export const thumbnailPath = (id) => `${picturePath(id, 0)}?size=thumbnail`;

/** A name in this tab's storage. Servers behind one proxy share an origin; a key or a draft belongs to one of them. */
export const storageName = (name) => `semantic-bit-${name}${FOLDER.pathname}`;
