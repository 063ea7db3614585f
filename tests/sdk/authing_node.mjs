// The vendor's `authing-node-sdk` against the simulator: signed requests, pages by number.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { ManagementClient } = createRequire(import.meta.url)("authing-node-sdk");

const SDK = "authing-node-sdk 4.0.1";
const { url, genauth: key } = JSON.parse(process.env.SIMULATOR);

const client = (accessKeySecret) =>
  new ManagementClient({ accessKeyId: key.access_key_id, accessKeySecret, host: url });

const identity = (record) => [
  ...["userId", "appId", "clientIp", "eventType", "eventDetail", "success", "userAgent"].map((name) => record[name] ?? null),
  // JavaScript reads +08:00 and Z, but not +0800.
  Date.parse(record.timestamp.replace(/([+-]\d\d)(\d\d)$/, "$1:$2")),
  record.requestId,
];

const counted = (texts) => {
  const counts = new Map();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return new Map([...counts].sort());
};

const right = client(key.access_key_secret);
const records = [];
for (let page = 1; ; page++) {
  // Filters and bounds that let everything pass, so that strings, numbers and objects are signed.
  const answer = await right.getUserActionLogs({ start: 0, pagination: { page, limit: 50 } });
  assert.equal(answer.statusCode, 200, JSON.stringify(answer));
  records.push(...answer.data.list);
  if (page * 50 >= answer.data.totalCount) break;
}

const ledger = (await (await fetch(`${url}/truth?source=genauth`)).text()).trim().split("\n").map((line) => JSON.parse(line));
const expected = ledger.map(({ identity, raw }) => JSON.stringify(identity ?? JSON.parse(raw)));
const odd = new Set(ledger.filter(({ raw }) => raw !== null).map(({ raw }) => JSON.stringify(JSON.parse(raw))));
const read = records.map((record) => {
  const text = JSON.stringify(record);
  return odd.has(text) ? text : JSON.stringify(identity(record));
});
assert.deepEqual(counted(read), counted(expected));
console.log(`${SDK}: ${records.length} records are the truth`);

const filtered = await right.getUserActionLogs({ eventType: "login", success: true, pagination: { page: 1, limit: 50 } });
assert(filtered.data.totalCount > 0 && filtered.data.totalCount < records.length);

const wrong = await client("wrong").getUserActionLogs({ pagination: { page: 1, limit: 50 } });
assert.equal(wrong.apiCode, 1300, JSON.stringify(wrong));
console.log(`${SDK}: a wrong key is refused: ${JSON.stringify(wrong)}`);
