//! Parses the output of `{:?}` as a tree, to compare values of types from different crates by field names.

use std::collections::BTreeMap;

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Tree {
    Fields(BTreeMap<String, Tree>),
    List(Vec<Tree>),
    Atom(String),
}

impl Tree {
    pub(super) fn of(value: &impl std::fmt::Debug) -> Self {
        let text = format!("{value:?}");
        let mut rest = text.as_str();
        let tree = parse(&mut rest);
        assert_eq!(rest, "", "{text}");
        tree
    }

    /// Returns it without these fields of the outermost struct.
    pub(super) fn without(mut self, names: &[&str]) -> Self {
        if let Self::Fields(fields) = &mut self {
            fields.retain(|name, _| !names.contains(&name.as_str()));
        }
        self
    }

    /// Returns a description of the first difference.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Fields(ours), Self::Fields(theirs)) if ours.keys().eq(theirs.keys()) => {
                let mut both = ours.iter().zip(theirs.values());
                both.find_map(|((name, a), b)| a.difference(b).map(|what| format!(".{name}{what}")))
            }
            (Self::List(ours), Self::List(theirs)) if ours.len() == theirs.len() => {
                let mut both = ours.iter().zip(theirs).enumerate();
                both.find_map(|(at, (a, b))| a.difference(b).map(|what| format!("[{at}]{what}")))
            }
            (a, b) if a == b => None,
            // If a version does not have the field, the other crate has an empty default instead of null. If it has the field, the bytes
            // are compared too.
            (Self::Atom(ours), Self::Atom(theirs)) if ours == "None" && theirs.is_empty() => None,
            (Self::Atom(ours), Self::List(theirs)) if ours == "None" && theirs.is_empty() => None,
            (a, b) => Some(format!(": {a:?} and {b:?}")),
        }
    }
}

fn eat(rest: &mut &str, what: &str) -> bool {
    *rest = rest.trim_start();
    match rest.strip_prefix(what) {
        Some(left) => {
            *rest = left;
            true
        }
        None => false,
    }
}

/// Parses elements up to `end`.
fn elements(rest: &mut &str, end: &str, mut element: impl FnMut(&mut &str)) {
    while !eat(rest, end) {
        element(rest);
        eat(rest, ",");
    }
}

fn parse(rest: &mut &str) -> Tree {
    if eat(rest, "[") {
        let mut list = Vec::new();
        elements(rest, "]", |rest| list.push(parse(rest)));
        return Tree::List(list);
    }
    if eat(rest, "{}") {
        return Tree::Fields(BTreeMap::new());
    }
    if rest.trim_start().starts_with('"') {
        return Tree::Atom(quoted(rest));
    }
    if rest.trim_start().starts_with("b\"") {
        eat(rest, "b");
        return Tree::List(bytes(&quoted(rest)));
    }
    let word = rest.find([',', '(', '{', ')', '}', ']', ' ']).unwrap_or(rest.len());
    let (name, left) = rest.split_at(word);
    *rest = left;
    if eat(rest, "(") {
        // A newtype or `Some`: use its content.
        let inside = parse(rest);
        assert!(eat(rest, ")"), "{name}: one element");
        return inside;
    }
    if eat(rest, "{") {
        let mut fields = BTreeMap::new();
        elements(rest, "}", |rest| {
            let colon = rest.find(':').expect("a field has a name");
            // A field named like a keyword has an additional underscore.
            let field = rest[..colon].trim().trim_matches('_').to_owned();
            *rest = &rest[colon + 1..];
            let value = parse(rest);
            if field != "unknown_tagged_fields" {
                fields.insert(field, value);
            }
        });
        return Tree::Fields(fields);
    }
    if name.len() == 36 && name.matches('-').count() == 4 {
        let digits = name.replace('-', "");
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
        return Tree::List((0..32).step_by(2).map(|at| Tree::Atom(byte(at).to_string())).collect());
    }
    Tree::Atom(name.to_owned())
}

/// Parses a quoted string, and keeps its escapes.
fn quoted(rest: &mut &str) -> String {
    assert!(eat(rest, "\""));
    let mut escaped = false;
    let end = rest.find(|c| match (c, escaped) {
        ('\\', false) => {
            escaped = true;
            false
        }
        ('"', false) => true,
        _ => {
            escaped = false;
            false
        }
    });
    let (text, left) = rest.split_at(end.expect("a closing quote"));
    *rest = &left[1..];
    text.to_owned()
}

/// Returns the bytes of a byte string.
fn bytes(text: &str) -> Vec<Tree> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, left @ ..] = rest {
        let (byte, left) = match (first, left) {
            (b'\\', [b'x', a, b, left @ ..]) => {
                let digits = [*a, *b];
                let digits = std::str::from_utf8(&digits).expect("two digits");
                (u8::from_str_radix(digits, 16).expect("two digits"), left)
            }
            (b'\\', [b'n', left @ ..]) => (b'\n', left),
            (b'\\', [b'r', left @ ..]) => (b'\r', left),
            (b'\\', [b't', left @ ..]) => (b'\t', left),
            (b'\\', [b'0', left @ ..]) => (0, left),
            (b'\\', [c, left @ ..]) | (c, left) => (*c, left),
        };
        bytes.push(Tree::Atom(byte.to_string()));
        rest = left;
    }
    bytes
}

#[test]
fn a_tree_is_the_debug_output_without_type_names() {
    #[derive(Debug)]
    #[allow(dead_code, reason = "it is only shown")]
    struct Inner(i8);
    #[derive(Debug)]
    #[allow(dead_code, reason = "it is only shown")]
    struct Outer<'a> {
        number: Option<Inner>,
        text: &'a str,
        unknown_tagged_fields: (),
        bytes: bytes::Bytes,
    }
    let outer = Outer {
        number: Some(Inner(-5)),
        text: "a \"b\" {",
        unknown_tagged_fields: (),
        bytes: bytes::Bytes::from_static(b"\0\"\\\xff"),
    };
    let bytes = ["0", "34", "92", "255"].map(|byte| Tree::Atom(byte.into())).to_vec();
    let fields = [
        ("number", Tree::Atom("-5".into())),
        ("text", Tree::Atom("a \\\"b\\\" {".into())),
        ("bytes", Tree::List(bytes)),
    ];
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(Tree::of(&outer), Tree::Fields(fields));
}
