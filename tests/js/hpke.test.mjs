// Run by tests/unit/test_protocol_hpke.py: `node --test`. Opens what Python sealed, with an independent HPKE.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { bytes, hex, open, publicKey, seal } from "./suite.mjs";

const vectors = JSON.parse(readFileSync(new URL("../vectors/hpke.json", import.meta.url), "utf8"));
const seedOf = (name) => bytes(vectors.keys.find((key) => key.name === name).seed);

for (const key of vectors.keys) {
  test(`the seed of ${key.name} makes its public key`, async () => {
    assert.equal(hex(await publicKey(bytes(key.seed))), key.publicKey);
  });
}

for (const message of vectors.messages) {
  const opened = (info, data) => open(seedOf(message.recipient), info, data);

  test(`${message.name}, sealed by ${message.sealedBy}, opens`, async () => {
    assert.equal(hex(await opened(bytes(message.info), bytes(message.message))), message.plaintext);
  });

  test(`${message.name} does not open under another info`, async () => {
    const other = Uint8Array.from([...bytes(message.info), 0]);
    await assert.rejects(opened(other, bytes(message.message)));
  });

  for (const position of [0, 1, 1121, -1]) {
    test(`${message.name} does not open with byte ${position} changed`, async () => {
      const data = bytes(message.message);
      data[position < 0 ? data.length + position : position] ^= 1;
      await assert.rejects(opened(bytes(message.info), data));
    });
  }
}

test("a fresh message makes the round trip", async () => {
  const [key] = vectors.keys;
  const sealed = await seal(bytes(key.publicKey), Uint8Array.of(1), Uint8Array.of(2, 3));
  assert.deepEqual(await open(bytes(key.seed), Uint8Array.of(1), sealed), Uint8Array.of(2, 3));
});
