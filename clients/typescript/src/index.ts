// A typed client of the HTTP API of Ostler: requests by openapi-fetch, and a session's events as an async iterator.
//
// Types come from `schema.d.ts`, which is made of the API's document (`npm run generate`). No state beyond the address and the
// token; no retries but those of a stream, which goes on after the last event that it gave.

import createClient, { type Client } from "openapi-fetch";

import type { components, paths } from "./schema.js";

export type Schemas = components["schemas"];
export type Event = Schemas["Event"];
export type Delta = Schemas["Delta"];
export type ApiError = Schemas["ApiError"];

/** Where a host is, and the token that it asks for. */
export interface Host {
  url: string;
  token: string;
}

/** A client with one typed method for each HTTP method: `client.GET("/v1/sessions")`. */
export function connect(host: Host): Client<paths> {
  return createClient<paths>({ baseUrl: host.url, headers: { Authorization: `Bearer ${host.token}` } });
}

/** A new key for a request that must be done once, however often it is sent. */
export function idempotencyKey(): string {
  // Browsers without a secure context and older Nodes lack it. A key must be new, it need not be secret.
  const random = () => Math.random().toString(36).slice(2);
  return globalThis.crypto?.randomUUID?.() ?? `${Date.now().toString(36)}-${random()}-${random()}`;
}

/** What comes over a stream of events. */
export type Frame =
  | { kind: "event"; event: Event }
  | { kind: "delta"; delta: Delta }
  | { kind: "caught_up"; seq: number };

/** An answer of the host that is no success. */
export class HostError extends Error {
  readonly status: number;
  readonly error: ApiError | undefined;

  constructor(status: number, error: ApiError | undefined) {
    super(error?.message ?? `the host answered ${status}`);
    this.name = "HostError";
    this.status = status;
    this.error = error;
  }
}

export interface StreamOptions {
  /** Only events after this sequence number. */
  after?: number;
  /** Ends the stream. */
  signal?: AbortSignal;
  /** Attempts to connect again without one frame in between, before the last failure is thrown. */
  attempts?: number;
  /** Milliseconds before the first new attempt; each further one waits twice as long. */
  pause?: number;
}

/**
 * A session's events from `after` on, then what happens live, until the caller stops or the signal is given. A connection that
 * breaks is made again with `Last-Event-ID`, so that no event is missed or given twice.
 */
export async function* events(host: Host, session: string, options: StreamOptions = {}): AsyncGenerator<Frame, void> {
  const { signal, attempts = 5, pause = 200 } = options;
  let last = options.after ?? 0;
  let failed = 0;
  while (!signal?.aborted) {
    try {
      for await (const frame of connection(host, session, last, signal)) {
        failed = 0;
        if (frame.kind === "event") last = frame.event.seq;
        yield frame;
      }
    } catch (error) {
      if (signal?.aborted) return;
      // What the host refuses it refuses again; a full one has room later.
      if (error instanceof HostError && error.status < 500 && error.status !== 429) throw error;
      if (failed >= attempts) throw error;
    }
    failed += 1;
    // A stream that ends without a failure is a host that stops: it counts as an attempt too.
    if (failed > attempts) throw new Error("the host ends the stream again and again");
    await sleep(pause * 2 ** (failed - 1), signal);
  }
}

async function* connection(host: Host, session: string, after: number, signal?: AbortSignal): AsyncGenerator<Frame> {
  const answer = await fetch(`${host.url}/v1/sessions/${encodeURIComponent(session)}/events`, {
    headers: {
      Authorization: `Bearer ${host.token}`,
      Accept: "text/event-stream",
      "Last-Event-ID": String(after),
    },
    ...(signal ? { signal } : {}),
  });
  if (!answer.ok || answer.body === null) {
    throw new HostError(answer.status, (await answer.json().catch(() => undefined)) as ApiError | undefined);
  }
  for await (const [name, data] of frames(answer.body)) {
    const value: unknown = JSON.parse(data);
    if (name === "delta") yield { kind: "delta", delta: value as Delta };
    else if (name === "caught_up") yield { kind: "caught_up", seq: (value as Schemas["CaughtUp"]).seq };
    else if (name === "message") yield { kind: "event", event: value as Event };
    // Frames of other names are of a newer host.
  }
}

/** Name and data of each frame. The host sends lines that end with a line feed, and one line of data for each frame. */
async function* frames(body: ReadableStream<Uint8Array>): AsyncGenerator<[string, string]> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const lines = text.slice(0, end).split("\n");
        text = text.slice(end + 2);
        const field = (name: string) => lines.find((line) => line.startsWith(name))?.slice(name.length);
        const data = field("data: ");
        if (data !== undefined) yield [field("event: ") ?? "message", data];
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", done);
  });
}
