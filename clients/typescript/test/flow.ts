// A whole session through the client, against the host that OSTLER_URL and OSTLER_TOKEN name. Its repository `demo` is filled
// and its model plays a script that ends with a pull request. Prints what it saw as one line of JSON; `tests/it/contract`
// runs it.

import { connect, events, idempotencyKey, HostError, type Event } from "../src/index.js";

const url = process.env["OSTLER_URL"] ?? "";
const token = process.env["OSTLER_TOKEN"] ?? "";
const host = { url, token };
const client = connect(host);

function good<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data === undefined) throw new Error(`${answer.response.status}: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

const author = { name: "Test Person", email: "person@example.org" };
const session = good(await client.POST("/v1/sessions", { body: { repository: "demo", author } }));

const path = { session: session.id };
const header = { "Idempotency-Key": idempotencyKey() };
const prompt = () => client.POST("/v1/sessions/{session}/prompts", { params: { path, header }, body: { text: "go" } });
const first = good(await prompt());
const second = good(await prompt());

// Reads a few events, leaves, and goes on where it was: nothing is missing and nothing comes twice.
const seen: Event[] = [];
let caughtUp = 0;
async function read(enough: () => boolean): Promise<void> {
  for await (const frame of events(host, session.id, { after: seen.at(-1)?.seq ?? 0, signal: AbortSignal.timeout(60_000) })) {
    if (frame.kind === "caught_up") caughtUp += 1;
    if (frame.kind === "event") seen.push(frame.event);
    if (enough()) return;
  }
}
await read(() => seen.length >= 2);
await read(() => seen.at(-1)?.type === "pull_request_opened");

const opened = seen.at(-1);
if (opened?.type !== "pull_request_opened") throw new Error(`the last event is ${JSON.stringify(opened)}`);
const pull = good(
  await client.GET("/v1/pull-requests/{pull_request}", { params: { path: { pull_request: opened.pull_request } } }),
);

const list = good(await client.GET("/v1/sessions", { params: { query: { repository: "demo", limit: 1 } } }));
const missing = await client.GET("/v1/sessions/{session}", { params: { path: { session: "ses_01jd3kq4v5w6x7y8z9a0b1c2d3" } } });
let refused: string | undefined;
try {
  for await (const _ of events(host, "ses_01jd3kq4v5w6x7y8z9a0b1c2d3")) break;
} catch (error) {
  if (error instanceof HostError) refused = error.error?.code;
}

console.log(
  JSON.stringify({
    session: session.id,
    once: first.prompt === second.prompt,
    numbers: seen.map((event) => event.seq),
    caughtUp,
    diff: pull.diff.diff,
    title: pull.title,
    listed: list.sessions.map((view) => view.id),
    missing: missing.error?.code,
    refused,
  }),
);
