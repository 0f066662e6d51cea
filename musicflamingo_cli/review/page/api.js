// Requests to the server; every write carries the token that only this page can read.

let csrf = "";

export class ApiError extends Error {
  constructor(status, answer) {
    super(answer.hint ? `${answer.error}: ${answer.hint}` : answer.error || `error ${status}`);
    this.status = status;
    this.conflict = answer.conflict;
  }
}

async function answered(response) {
  const answer = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new ApiError(response.status, answer);
  return answer;
}

export async function get(path, values = {}) {
  const query = new URLSearchParams(values).toString();
  return answered(await fetch(query ? `${path}?${query}` : path));
}

export async function post(path, value = {}) {
  const headers = { "Content-Type": "application/json", "X-Review-CSRF": csrf };
  return answered(await fetch(path, { method: "POST", headers, body: JSON.stringify(value) }));
}

export async function session() {
  const found = await get("/api/session");
  csrf = found.csrf;
  return found;
}

export async function picture(id) {
  const response = await fetch(`/api/tracks/${id}/picture`);
  return response.ok ? new Uint8Array(await response.arrayBuffer()) : null;
}
