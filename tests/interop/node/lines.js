// Records as lines of JSON, the form that `highwater consume --json` prints and `highwater produce --json` reads.
'use strict';

/** Returns the bytes of a field, given as text, as base64 in a separate field, or not at all. */
const asBytes = (fields, name) => {
  const code = fields[`${name}_base64`];
  if (code !== undefined) return Buffer.from(code, 'base64');
  return fields[name] == null ? null : Buffer.from(fields[name]);
};

/** Inverse of `asBytes`. */
const asFields = (name, bytes) => {
  if (bytes == null) return { [name]: null };
  const text = bytes.toString('utf8');
  return Buffer.from(text).equals(bytes) ? { [name]: text } : { [`${name}_base64`]: bytes.toString('base64') };
};

/** Converts headers to kafkajs's form: by name, with an array for a repeated name. */
const headersOf = (record) => {
  const headers = {};
  for (const header of record.headers) (headers[header.key] ??= []).push(asBytes(header, 'value'));
  return headers;
};

/** Converts headers from kafkajs's form. It does not keep the order of different names, so they are in the order of their first occurrence. */
const headerFields = (headers) =>
  Object.entries(headers).flatMap(([key, values]) => [values].flat().map((value) => ({ key, ...asFields('value', value) })));

module.exports = { asBytes, asFields, headersOf, headerFields };
