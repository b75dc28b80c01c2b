// Checks the room, identity, frame, link, record and signature vectors with a
// second implementation of docs/spec/rooms.md and docs/spec/identity.md. It
// uses nothing but what Node has built in (version 20 or later):
//
//	node docs/spec/vectors/check-rooms.mjs
//
// It prints one line per file and ends with 0, or names each difference and
// ends with 1.

import { readFileSync } from 'node:fs';
import * as crypto from 'node:crypto';
import { verifyZIP215 } from './zip215.mjs';
import * as schema from './schema.mjs';

const { encode, decode, Unsupported } = schema;
const dir = new URL('.', import.meta.url);
const load = (name) => JSON.parse(readFileSync(new URL(name, dir), 'utf8'));
const hex = (b) => Buffer.from(b).toString('hex');
const un = (s) => Buffer.from(s ?? '', 'hex');
const utf8 = (s) => Buffer.from(s, 'utf8');
const sha256 = (...parts) => crypto.createHash('sha256').update(Buffer.concat(parts)).digest();
const hash = (domain, ...parts) => sha256(utf8(domain), ...parts);
const hmac = (key, ...parts) => crypto.createHmac('sha256', key).update(Buffer.concat(parts)).digest();
const hkdf = (secret, info) => Buffer.from(crypto.hkdfSync('sha256', secret, Buffer.alloc(0), info, 32));
const u64 = (n) => { const b = Buffer.alloc(8); b.writeBigUInt64BE(BigInt(n)); return b; };

// --- signatures -------------------------------------------------------------

const pkcs8 = (oid, seed) => crypto.createPrivateKey({
  key: Buffer.concat([un('302e020100300506032b65' + oid + '04220420'), seed]), format: 'der', type: 'pkcs8',
});
const publicOf = (key) => crypto.createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32);
const edPublic = (seed) => publicOf(pkcs8('70', seed));
const message = (domain, payload) => Buffer.concat([utf8(domain), Buffer.from([0]), payload]);
const sign = (domain, seed, payload) => crypto.sign(null, message(domain, payload), pkcs8('70', seed));
const verify = (domain, key, payload, sig) => verifyZIP215(key, message(domain, payload), sig);

// --- XChaCha20-Poly1305 -----------------------------------------------------

// hchacha20 follows draft-irtf-cfrg-xchacha-03, section 2.2.
function hchacha20(key, nonce16) {
  const s = new Uint32Array(16);
  s.set([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);
  for (let i = 0; i < 8; i++) s[4 + i] = key.readUInt32LE(4 * i);
  for (let i = 0; i < 4; i++) s[12 + i] = nonce16.readUInt32LE(4 * i);
  const rotl = (v, n) => (v << n) | (v >>> (32 - n));
  const quarter = (a, b, c, d) => {
    s[a] += s[b]; s[d] = rotl(s[d] ^ s[a], 16);
    s[c] += s[d]; s[b] = rotl(s[b] ^ s[c], 12);
    s[a] += s[b]; s[d] = rotl(s[d] ^ s[a], 8);
    s[c] += s[d]; s[b] = rotl(s[b] ^ s[c], 7);
  };
  for (let i = 0; i < 10; i++) {
    quarter(0, 4, 8, 12); quarter(1, 5, 9, 13); quarter(2, 6, 10, 14); quarter(3, 7, 11, 15);
    quarter(0, 5, 10, 15); quarter(1, 6, 11, 12); quarter(2, 7, 8, 13); quarter(3, 4, 9, 14);
  }
  const out = Buffer.alloc(32);
  for (let i = 0; i < 4; i++) { out.writeUInt32LE(s[i], 4 * i); out.writeUInt32LE(s[12 + i], 16 + 4 * i); }
  return out;
}

const aeadArgs = (key, nonce) => ['chacha20-poly1305', hchacha20(key, nonce.subarray(0, 16)),
  Buffer.concat([Buffer.alloc(4), nonce.subarray(16)]), { authTagLength: 16 }];

function seal(key, nonce, plain, ad) {
  const c = crypto.createCipheriv(...aeadArgs(key, nonce));
  c.setAAD(ad, { plaintextLength: plain.length });
  return Buffer.concat([c.update(plain), c.final(), c.getAuthTag()]);
}

function open(key, nonce, box, ad) {
  const body = box.subarray(0, box.length - 16);
  const d = crypto.createDecipheriv(...aeadArgs(key, nonce));
  d.setAAD(ad, { plaintextLength: body.length });
  d.setAuthTag(box.subarray(box.length - 16));
  return Buffer.concat([d.update(body), d.final()]);
}

// --- text forms -------------------------------------------------------------

function bits32(b, alphabet) {
  let out = '', acc = 0, n = 0;
  for (const c of b) {
    acc = (acc << 8) | c; n += 8;
    while (n >= 5) { out += alphabet[(acc >>> (n - 5)) & 31]; n -= 5; }
    acc &= (1 << n) - 1;
  }
  return n > 0 ? out + alphabet[(acc << (5 - n)) & 31] : out;
}
const base32 = (b) => bits32(b, 'abcdefghijklmnopqrstuvwxyz234567');
const fingerprint = (account) => bits32(hash('starling/fingerprint/1', account).subarray(0, 5), '0123456789ABCDEFGHJKMNPQRSTVWXYZ');

function peerID(key) {
  const alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
  const raw = Buffer.concat([un('002408011220'), key]);
  let n = BigInt('0x' + hex(raw)), out = '';
  for (; n > 0n; n /= 58n) out = alphabet[Number(n % 58n)] + out;
  return '1' + out;
}

function canonicalName(input) {
  let s = input;
  for (let i = 0; i < 4; i++) s = s.normalize('NFKC').toUpperCase().toLowerCase().normalize('NFKC');
  s = s.replace(/^#/, '');
  const runes = [...s];
  if (runes.length < 1 || runes.length > 64 || !/[\p{L}\p{Nd}]/u.test(s)) return null;
  return /^[\p{L}\p{Nd}_.-][\p{L}\p{Nd}\p{M}_.-]*$/u.test(s) ? s : null;
}

// --- rooms ------------------------------------------------------------------

function roomKeys(secret) {
  const seed = hkdf(secret, 'starling/room/topic/1');
  return {
    seed, topic: edPublic(seed), head: hkdf(secret, 'starling/room/head/1'), body: hkdf(secret, 'starling/room/body/1'),
    nonce: hkdf(secret, 'starling/room/nonce/1'), rendezvous: hkdf(secret, 'starling/room/rendezvous/1'),
  };
}

const associated = (topic, flags, hlc) => Buffer.concat([topic, Buffer.from([1, flags]), u64(hlc)]);
const sealedID = (topic, s, bodyHash) => hash('starling/sealed/1', associated(topic, s.flags ?? 0, s.hlc), un(s.nonce), un(s.head), bodyHash);

function sealEvent(keys, header, sig, body) {
  const flags = header.kind >= 128 ? 1 : 0;
  const ad = associated(keys.topic, flags, header.hlc);
  const head = encode(schema.eventHead, { header: hex(encode(schema.header, header)), signature: hex(sig) });
  const nonce = hmac(keys.nonce, ad, head).subarray(0, 24);
  const s = { flags, hlc: header.hlc, nonce: hex(nonce), head: hex(seal(keys.head, nonce, head, ad)), body: hex(seal(keys.body, nonce, body, ad)) };
  const bodyHash = sha256(un(s.body));
  const id = sealedID(keys.topic, s, bodyHash);
  s.signature = hex(sign('starling/sealed/1', keys.seed, id));
  const stub = { ...s, body: undefined, body_hash: hex(bodyHash) };
  return { id, raw: encode(schema.sealed, s), stub: encode(schema.sealed, stub) };
}

class Invalid extends Error {}
const need = (ok, why) => { if (!ok) throw new Invalid(why); };

function checkSealed(topic, raw) {
  need(raw.length <= 65536, 'size');
  const s = decode(schema.sealed, raw);
  need(s.hlc && s.nonce && s.signature && s.head && un(s.head).length > 16, 'fields');
  need(!s.body !== !s.body_hash, 'body or hash');
  need(!s.body || un(s.body).length >= 32, 'body length');
  if ((s.flags ?? 0) & ~1) throw new Unsupported('flags');
  const id = sealedID(topic, s, s.body ? sha256(un(s.body)) : un(s.body_hash));
  need(verify('starling/sealed/1', topic, id, un(s.signature)), 'signature');
  return { ...s, id };
}

function checkCertificate(c) {
  need(c.account && c.device && c.signature && c.account !== c.device, 'certificate fields');
  need(!c.not_after || c.not_after > (c.not_before ?? 0), 'certificate dates');
  const signed = encode(schema.certificate, { ...c, signature: undefined });
  need(verify('starling/certificate/1', un(c.account), signed, un(c.signature)), 'certificate signature');
}

function checkHeader(h) {
  need(h.kind && h.hlc && h.device_seq && h.certificate && h.body_hash, 'header fields');
  need(!h.room === (h.kind === 32), 'room');
  need((BigInt(h.device_seq) === 1n) === !h.previous, 'previous');
  need(![2, 3, 4].includes(h.kind) || h.ref, 'ref');
  need(h.body_length >= 16 && h.body_length <= 48 << 10, 'body length');
  const parents = h.parents ?? [];
  need(parents.every((p, i) => i === 0 || parents[i - 1] < p), 'parents');
  checkCertificate(h.certificate);
  const at = BigInt(h.hlc) >> 16n;
  need(at >= BigInt(h.certificate.not_before ?? 0) && (!h.certificate.not_after || at < BigInt(h.certificate.not_after)), 'dates');
}

function checkEvent(raw) {
  const e = decode(schema.event, raw);
  need(e.header && e.signature, 'event fields');
  const h = decode(schema.header, un(e.header));
  checkHeader(h);
  if (e.body) {
    need(un(e.body).length === h.body_length, 'body length');
    need(hex(hash('starling/body/1', un(e.body))) === h.body_hash, 'body hash');
  }
  const id = hash('starling/event/1', un(e.header));
  need(verify('starling/event/1', un(h.certificate.device), id, un(e.signature)), 'event signature');
  return { h, id, body: e.body };
}

function openSealed(keys, s) {
  const ad = associated(keys.topic, s.flags ?? 0, s.hlc), nonce = un(s.nonce);
  const head = open(keys.head, nonce, un(s.head), ad);
  need(hex(hmac(keys.nonce, ad, head).subarray(0, 24)) === s.nonce, 'nonce');
  const body = s.body ? open(keys.body, nonce, un(s.body), ad) : null;
  const e = { ...decode(schema.eventHead, head), body: body ? hex(body) : undefined };
  const got = checkEvent(encode(schema.event, e));
  need(BigInt(got.h.hlc) === BigInt(s.hlc), 'clocks');
  need((got.h.kind >= 128) === ((s.flags ?? 0) === 1), 'ephemeral');
  return got;
}

const verdict = (f) => {
  try { f(); return 'accepted'; } catch (e) { return e instanceof Unsupported ? 'unsupported' : 'invalid'; }
};

// --- checking ---------------------------------------------------------------

let failures = 0, count = 0;
function equal(what, got, want) {
  count++;
  if (got === want) return;
  failures++;
  console.log(`${what}:\n  got  ${got}\n  want ${want}`);
}
function file(name, f) {
  const before = count, failed = failures;
  f(load(name));
  console.log(`${name}: ${count - before} checks, ${failures - failed} differ`);
}

// roundTrip checks that a value has this encoding and the encoding only this form.
function roundTrip(what, s, value, encoded) {
  equal(what, hex(encode(s, value)), encoded);
  equal(what + ' read back', hex(encode(s, decode(s, un(encoded)))), encoded);
}

file('signatures.json', (list) => {
  list.forEach((v, i) => equal(`signature ${i} (${v.why})`, verify(v.domain, un(v.key), un(v.payload), un(v.signature)), v.valid));
});

file('rooms.json', (v) => {
  for (const n of v.names) equal(`name ${JSON.stringify(n.input)}`, canonicalName(n.input), n.canonical ?? null);
  for (const s of v.secrets) {
    if (!crypto.argon2Sync) break; // older than Node 24: the secrets are taken as given
    const input = Buffer.concat([utf8(s.name), s.password ? Buffer.concat([Buffer.from([0]), utf8(s.password.normalize('NFC'))]) : utf8('')]);
    const secret = crypto.argon2Sync('argon2id', {
      message: input, nonce: hash('starling/room/1', utf8(s.network)), parallelism: 4, tagLength: 32, memory: 65536, passes: 3,
    });
    equal(`secret of ${s.name}`, hex(secret), s.secret);
  }
  for (const k of v.keys) {
    const keys = roomKeys(un(k.secret));
    equal('topic key', hex(keys.topic), k.topic_key);
    equal('topic', '/starling/t/1/' + base32(keys.topic), k.topic);
    equal('room id', hex(hash('starling/room-id/1', keys.topic)), k.room_id);
    for (const r of k.rendezvous) equal('rendezvous', hex(hmac(keys.rendezvous, utf8('starling/rendezvous/1'), u64(r.day))), r.key);
    equal('sync proof', hex(sign('starling/sync/1', keys.seed, un(k.sync_transcript))), k.sync_proof);
    equal('attach proof', hex(sign('starling/attach/1', keys.seed, Buffer.concat([un(k.relay), un(k.client), un(k.nonce)]))), k.attach_proof);
  }
  for (const h of v.hlc) {
    const reading = (ms) => BigInt(ms) << 16n, limit = reading(h.wall + 120000) | 0xffffn;
    let next = reading(h.wall);
    for (const p of [h.last, ...h.parents].map(BigInt)) if (p < limit && p + 1n > next) next = p + 1n;
    equal('next clock reading', String(next), h.next);
  }
  for (const b of v.bodies) roundTrip(`body ${b.name}`, schema.bodies[b.kind], b.value, b.encoded);
  const keys = roomKeys(un(v.events_of.room_secret)), device = un(v.events_of.device_seed);
  v.events.forEach((e, i) => {
    const what = `event ${i}`, body = Buffer.concat([un(e.salt), un(e.content)]);
    equal(what + ' body hash', hex(hash('starling/body/1', body)), e.header.body_hash);
    const c = { ...e.header.certificate, signature: undefined };
    equal(what + ' certificate', hex(sign('starling/certificate/1', un(v.events_of.account_seed), encode(schema.certificate, c))), e.header.certificate.signature);
    const header = encode(schema.header, e.header), id = hash('starling/event/1', header);
    equal(what + ' id', hex(id), e.event_id);
    const sig = sign('starling/event/1', device, id);
    equal(what, hex(encode(schema.event, { header: hex(header), signature: hex(sig), body: hex(body) })), e.event);
    const s = sealEvent(keys, e.header, sig, body);
    equal(what + ' sealed', hex(s.raw), e.sealed);
    equal(what + ' sealed id', hex(s.id), e.sealed_id);
    equal(what + ' stub', hex(s.stub), e.stub);
    equal(what + ' gossip id', hex(hash('starling/gossip/1', utf8('/starling/t/1/' + base32(keys.topic)), s.raw)), e.gossip_id);
    for (const raw of [e.sealed, e.stub]) {
      const checked = checkSealed(keys.topic, un(raw)), opened = openSealed(keys, checked);
      equal(what + ' opened', hex(opened.id) + hex(checked.id), e.event_id + e.sealed_id);
    }
  });
  for (const r of v.refused) {
    const f = r.what === 'sealed' ? () => checkSealed(keys.topic, un(r.raw)) : () => checkEvent(un(r.raw));
    equal(`${r.what}: ${r.why}`, verdict(f), r.verdict);
  }
});

file('frames.json', (v) => {
  let deposited, box; // of the deposit that a receipt follows
  for (const protocol of ['dm', 'relay', 'mailbox']) {
    for (const f of v[protocol]) {
      const [type, s] = schema.frames[f.name], payload = Buffer.concat([Buffer.from([type]), encode(s, f.value)]);
      const size = Buffer.alloc(4);
      size.writeUInt32BE(payload.length);
      equal(f.name, hex(size) + hex(payload), f.frame);
      equal(f.name + ' read back', hex(encode(s, decode(s, payload.subarray(1)))), hex(payload.subarray(1)));
      if (f.name === 'RelayAttach') {
        const transcript = Buffer.concat([un(v.relay_device), un(v.client_device), un(f.value.nonce)]);
        for (const t of f.value.topics) equal('attach proof', verify('starling/attach/1', un(t.topic), transcript, un(t.proof)), true);
      }
      if (f.name === 'MailboxDeposit') deposited = hash('starling/deposit/1', un(f.value.mailbox), un(f.value.envelope)), box = un(f.value.mailbox);
      if (f.name === 'MailboxReceipt' && f.value.signature) {
        const expires = Buffer.alloc(8);
        expires.writeBigUInt64BE(BigInt(f.value.expires));
        equal('deposit id', hex(deposited), f.value.deposit);
        equal('receipt', verify('starling/receipt/1', un(v.relay_device), Buffer.concat([box, deposited, expires]), un(f.value.signature)), true);
      }
      if (f.value.proof) {
        const transcript = Buffer.concat([un(v.relay_device), un(f.value.nonce)]);
        equal('mailbox proof', verify('starling/mailbox/1', un(f.value.mailbox), transcript, un(f.value.proof)), true);
      }
    }
  }
  for (const c of v.contents) roundTrip('direct message', schema.content, c.value, c.encoded);
  for (const b of v.bodies) roundTrip(`direct body ${b.kind}`, schema.dmBodies[b.kind], b.value, b.encoded);
});

file('records.json', (v) => {
  for (const [name, domain, key] of [['device_list', 'starling/device-list/1', (r) => r.account], ['prekey_record', 'starling/prekeys/1', (r) => r.certificate.device]]) {
    const { value, encoded } = v[name], s = schema.records[name];
    roundTrip(name, s, value, encoded);
    const signed = encode(s, { ...value, signature: undefined });
    equal(name + ' signature', verify(domain, un(key(value)), signed, un(value.signature)), true);
    for (const c of value.devices ?? [value.certificate]) equal(name + ' certificate', verdict(() => checkCertificate(c)), 'accepted');
  }
});

function payloadLink(kind, s, value) {
  const raw = encode(s, value);
  return `starling:${kind}/` + Buffer.concat([raw, sha256(raw).subarray(0, 4)]).toString('base64url');
}

function roomLink(l) {
  need(canonicalName(l.name) === l.name, 'name');
  need((l.addresses ?? []).every((a) => a.startsWith('/')), 'address');
  const escape = (s) => encodeURIComponent(s).replace(/[!'()*]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());
  const query = [];
  if (l.network) query.push('network=' + escape(l.network));
  if (l.password) query.push('password=1');
  for (const a of l.addresses ?? []) query.push('addr=' + escape(a));
  return 'starling:room/' + escape(l.name) + (query.length ? '?' + query.join('&') : '');
}

function parseLink(text) {
  need(text.startsWith('starling:'), 'scheme');
  const [, kind, rest] = /^starling:([^/]*)\/?(.*)$/su.exec(text) ?? [];
  let again;
  if (kind === 'room') {
    const [path, query] = rest.split(/\?(.*)/s), l = { name: decodeURIComponent(path), addresses: [] };
    for (const pair of query === undefined ? [] : query.split('&')) {
      const [key, value] = pair.split(/=(.*)/s);
      if (key === 'network') l.network = decodeURIComponent(value);
      else if (key === 'password') l.password = true;
      else if (key === 'addr') l.addresses.push(decodeURIComponent(value));
      else throw new Unsupported('parameter');
    }
    again = roomLink(l);
  } else if (kind === 'contact' || kind === 'invite') {
    const body = Buffer.from(rest, 'base64url'), raw = body.subarray(0, -4);
    need(body.length > 4 && sha256(raw).subarray(0, 4).equals(body.subarray(-4)), 'checksum');
    again = payloadLink(kind, schema.links[kind], decode(schema.links[kind], raw));
  } else throw new Unsupported('kind');
  need(again === text, 'form');
}

file('links.json', (v) => {
  for (const l of v.links) {
    const kind = { ContactLink: 'contact', InviteLink: 'invite', RoomLink: 'room' }[l.name];
    equal(l.name, kind === 'room' ? roomLink(l.value) : payloadLink(kind, schema.links[kind], l.value), l.text);
    equal(l.name + ' read back', verdict(() => parseLink(l.text)), 'accepted');
    if (kind === 'invite') {
      const signed = encode(schema.links.invite, { ...l.value, signature: undefined });
      equal('invite signature', verify('starling/invite/1', un(l.value.inviter.device), signed, un(l.value.signature)), true);
    }
  }
  for (const r of v.refused) equal(`link: ${r.why}`, verdict(() => parseLink(r.raw)), r.verdict);
});

const accountSeed = (phrase) => hkdf(bip39Seed(phrase, ''), 'starling/account-key/1');
const bip39Seed = (phrase, password) => crypto.pbkdf2Sync(phrase.normalize('NFKD'), 'mnemonic' + password, 2048, 64, 'sha512');

function safetyNumber(a, b) {
  const [low, high] = [a, b].sort(Buffer.compare);
  const sum = crypto.createHash('sha512').update(utf8('starling/safety-number/1')).update(low).update(high).digest();
  let out = '';
  for (let i = 0; i < 12; i++) out += String(BigInt('0x' + hex(sum.subarray(5 * i, 5 * i + 5))) % 100000n).padStart(5, '0');
  return out;
}

function checkKeysFile(k) {
  const raw = un(k.file), end = raw.length - 32;
  equal('keys file size', raw.length, 275);
  equal('keys file sum', hex(sha256(raw.subarray(0, end))), hex(raw.subarray(end)));
  equal('keys file head', raw.subarray(0, 9).toString('latin1'), 'starkeys\x01');
  let wrap = un(k.wrapping_key);
  if (!k.passphrase) {
    equal('keys file unprotected', hex(hash('starling/keys/unprotected/1')), k.wrapping_key);
    equal('keys file cost', hex(raw.subarray(9, 19)), '00'.repeat(10));
  } else {
    equal('keys file cost', hex(raw.subarray(9, 19)), '01' + '00000003' + '00010000' + '04');
    if (crypto.argon2Sync) {
      wrap = crypto.argon2Sync('argon2id', {
        message: utf8(k.passphrase.normalize('NFKC')), nonce: raw.subarray(19, 35), parallelism: 4, tagLength: 32, memory: 65536, passes: 3,
      });
    }
  }
  const master = open(wrap, raw.subarray(35, 59), raw.subarray(59, 107), raw.subarray(0, 59));
  equal('master key', hex(master), k.master_key);
  const payload = open(hkdf(master, 'starling/keys/payload/1'), raw.subarray(107, 131), raw.subarray(131, 243), raw.subarray(0, 131));
  equal('keys payload', hex(payload), k.entropy + k.device_seed + k.agreement);
  equal('log key', hex(hkdf(master, 'starling/storage/log/1')), k.log_key);
}

file('identity.json', (v) => {
  for (const a of v.accounts) {
    equal('BIP-39 seed', hex(bip39Seed(a.phrase, 'TREZOR')), a.trezor_seed);
    const account = edPublic(accountSeed(a.phrase));
    equal('account', hex(account), a.account);
    equal('account id', peerID(account), a.account_id);
    equal('fingerprint', fingerprint(account), a.fingerprint);
    equal('read-marker key', hex(hkdf(bip39Seed(a.phrase, ''), 'starling/account/read-marker/1')), a.read_marker_key);
  }
  for (const s of v.safety) {
    equal('safety number', safetyNumber(un(s.a), un(s.b)), s.number);
    equal('safety number, other order', safetyNumber(un(s.b), un(s.a)), s.number);
    equal('safety QR', 'STARLING:SAFETY/1/' + s.number, s.qr);
    equal('conversation', hex(hash('starling/conversation/1', ...[un(s.a), un(s.b)].sort(Buffer.compare))), s.conversation);
  }
  const d = v.device, device = edPublic(un(d.seed));
  equal('device', hex(device), d.device);
  equal('device id', peerID(device), d.device_id);
  equal('peer id', '002408011220' + hex(device), d.peer_id);
  const agreement = publicOf(pkcs8('6e', un(d.agreement_private)));
  equal('agreement key', hex(agreement), d.agreement);
  equal('agreement signature', hex(sign('starling/agreement/1', un(d.seed), agreement)), d.agreement_signature);
  const seed = accountSeed(d.account_phrase), grid = 90 * 86400000, from = Math.floor(d.certificate_at / grid) * grid;
  const c = { account: hex(edPublic(seed)), device: d.device, not_before: from, not_after: from + 2 * 365 * 86400000 };
  c.signature = hex(sign('starling/certificate/1', seed, encode(schema.certificate, c)));
  equal('certificate', hex(encode(schema.certificate, c)), d.certificate);
  v.keys_files.forEach(checkKeysFile);
});

if (!crypto.argon2Sync) console.log('this Node has no Argon2: room secrets and wrapping keys were taken as given');
console.log(failures === 0 ? `all ${count} checks agree` : `${failures} of ${count} checks differ`);
process.exit(failures === 0 ? 0 : 1);
