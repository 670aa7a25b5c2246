// The vectors of the signed structures, and of what the contracts keep as digests, against viem: what a dApp would sign and send.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  concat,
  encodeAbiParameters,
  hashDomain,
  hashStruct,
  hashTypedData,
  keccak256,
  recoverTypedDataAddress,
  sha256,
  stringToHex,
} from "viem";

const vectors = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url)));
const { domain: given, signer, cases } = vectors("eip712");
const onchain = vectors("onchain");
const { separator, ...domain } = given;

// "Out(string name,uint8 kind)" and what follows it, as viem takes types.
function typesOf(typeString) {
  const types = {};
  for (const [, name, members] of typeString.matchAll(/(\w+)\(([^)]*)\)/g)) {
    types[name] = members.split(",").map((member) => {
      const [type, field] = member.split(" ");
      return { type, name: field };
    });
  }
  return types;
}

function abiOf(types, type, name = "") {
  const [, base, suffix] = type.match(/^(\w+)((?:\[\])*)$/);
  if (!types[base]) return { type, name };
  return { type: `tuple${suffix}`, name, components: types[base].map((member) => abiOf(types, member.type, member.name)) };
}

const typesNamed = Object.fromEntries(cases.map((each) => [each.type, typesOf(each.typeString)]));
const ANYONE = keccak256(stringToHex("enclave-oracle/anyone"));
const TAG = sha256(stringToHex("enclave-oracle/recipients/1"));
const DATA_TERMS = abiOf(
  typesOf("DataTerm(address owner,bytes32 idOrStream,bytes32 lineage,uint8 policy,uint64 minVersion,uint256 budget)"),
  "DataTerm[]",
);
const digestOf = (kinds, values) => keccak256(encodeAbiParameters(kinds.map((type) => ({ type })), values));

test("the domain", () => {
  const types = typesOf("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
  assert.equal(hashDomain({ domain, types }), separator);
});

for (const [index, each] of cases.entries()) {
  const types = typesNamed[each.type];
  const typed = { types, primaryType: each.type, message: each.value };

  test(`${each.type} (${index}): struct hash, digest, signature`, async () => {
    assert.equal(hashStruct({ types, primaryType: each.type, data: each.value }), each.structHash);
    assert.equal(hashTypedData({ domain, ...typed }), each.digest);
    const found = await recoverTypedDataAddress({ domain, ...typed, signature: each.signature });
    assert.equal(found.toLowerCase(), signer.address.toLowerCase());
  });

  test(`${each.type} (${index}): ABI encoding`, () => {
    assert.equal(encodeAbiParameters([abiOf(types, each.type)], [each.value]), each.abi);
  });
}

for (const { name, value, ...kept } of onchain.agreements) {
  const types = typesNamed.Agreement;

  test(`an agreement of ${name}: what settles under it`, () => {
    const teeHash = hashStruct({ types, primaryType: "Enclaves", data: value.tee });
    const priceHash = hashStruct({ types, primaryType: "Price", data: value.price });
    assert.equal(teeHash, kept.teeHash);
    assert.equal(priceHash, kept.priceHash);
    const settlement = digestOf(["address", "bytes32", "bytes32"], [value.enclaveRegistry, teeHash, priceHash]);
    assert.equal(settlement, kept.settlementHash);
  });

  test(`an agreement of ${name}: what a request is admitted by`, () => {
    const plain = value.data.every((each) => each.policy === 1 && each.budget === "0");
    assert.equal(plain, kept.admission.data.length === 0);
    const data = plain
      ? concat(value.data.map((each) => each.idOrStream))
      : concat([encodeAbiParameters([DATA_TERMS], [value.data]), "0x01"]);
    const admission = digestOf(["bytes32", "bytes32"], [value.access.requesters, keccak256(data)]);
    assert.equal(admission, kept.admissionHash);
    if (plain) assert.equal(value.access.requesters, ANYONE);
  });

  test(`an agreement of ${name}: its auditors`, () => {
    const { accounts, threshold } = kept.auditors;
    const digest = accounts.length ? digestOf(["address[]", "uint8"], [accounts, threshold]) : `0x${"00".repeat(32)}`;
    assert.equal(digest, kept.auditorsDigest);
    assert.equal(digest, value.auditors);
  });
}

test("requesters are leaves of their tree", () => {
  const { root, listed } = onchain.requesters;
  for (const { address, quota, leaf, proof } of listed) {
    assert.equal(keccak256(digestOf(["address", "uint64"], [address, BigInt(quota)])), leaf);
    const found = proof.reduce((node, other) => keccak256(concat(node < other ? [node, other] : [other, node])), leaf);
    assert.equal(found, root);
  }
});

test("recipients", () => {
  for (const { recipients, resultKey, digest } of onchain.recipients) {
    const keys = recipients.map((each) => (BigInt(each) === 0n ? resultKey : each));
    assert.equal(sha256(encodeAbiParameters([{ type: "bytes32" }, { type: "bytes32[]" }], [TAG, keys])), digest);
  }
});
