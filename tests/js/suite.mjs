// docs/protocol.md, "HPKE", a second time: what a browser or a Node program would write.
import { Aes256Gcm, CipherSuite, HkdfSha256 } from "@hpke/core";
import { XWing } from "@hpke/hybridkem-x-wing";

const VERSION = 1;
const ENC_BYTES = 1120;
const suite = new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

export const bytes = (text) => Uint8Array.from(Buffer.from(text.replace(/^0x/, ""), "hex"));
export const hex = (data) => "0x" + Buffer.from(data).toString("hex");

function unversioned(wire) {
  if (wire[0] !== VERSION) throw new Error(`version byte ${wire[0]}, expected ${VERSION}`);
  return wire.slice(1);
}

export async function seal(publicKey, info, plaintext) {
  const recipientPublicKey = await suite.kem.deserializePublicKey(unversioned(publicKey));
  const sender = await suite.createSenderContext({ recipientPublicKey, info });
  const sealed = new Uint8Array(await sender.seal(plaintext));
  return Uint8Array.from([VERSION, ...new Uint8Array(sender.enc), ...sealed]);
}

export async function open(seed, info, message) {
  const recipientKey = await suite.kem.importKey("raw", seed, false);
  const body = unversioned(message);
  const recipient = await suite.createRecipientContext({ recipientKey, enc: body.slice(0, ENC_BYTES), info });
  return new Uint8Array(await recipient.open(body.slice(ENC_BYTES)));
}

// The public key that a seed makes, in this protocol's form.
export async function publicKey(seed) {
  await suite.kem.importKey("raw", seed, false);
  const pair = await suite.kem.generateKeyPairDerand(seed);
  return Uint8Array.from([VERSION, ...new Uint8Array(await suite.kem.serializePublicKey(pair.publicKey))]);
}
