// Records as lines of JSON, the form that `highwater consume --json` prints and `highwater produce --json` reads.
'use strict';

/** The bytes of a field, which is text, or base64 in a field of its own, or not there. */
const asBytes = (fields, name) => {
  const code = fields[`${name}_base64`];
  if (code !== undefined) return Buffer.from(code, 'base64');
  return fields[name] == null ? null : Buffer.from(fields[name]);
};

/** The reverse of `asBytes`. */
const asFields = (name, bytes) => {
  if (bytes == null) return { [name]: null };
  const text = bytes.toString('utf8');
  return Buffer.from(text).equals(bytes) ? { [name]: text } : { [`${name}_base64`]: bytes.toString('base64') };
};

/** Headers as kafkajs takes them: by name, and an array where a name comes more than once. */
const headersOf = (record) => {
  const headers = {};
  for (const header of record.headers) (headers[header.key] ??= []).push(asBytes(header, 'value'));
  return headers;
};

/** The reverse. What kafkajs does not keep, the order of headers of different names, is that of the names' first ones. */
const headerFields = (headers) =>
  Object.entries(headers).flatMap(([key, values]) => [values].flat().map((value) => ({ key, ...asFields('value', value) })));

module.exports = { asBytes, asFields, headersOf, headerFields };
