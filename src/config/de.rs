//! Tree to typed values, by serde, with every fault found in one run.
//!
//! serde stops at the first fault. So a fault is noted, its node taken out, and the tree read again, until it reads.

use super::problem::Problem;
use super::yaml::{Document, Kind, NodeId, Scalar};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::collections::HashSet;
use std::fmt;

/// Name of the newtype that takes a node as JSON text.
pub const JSON: &str = "$json";

/// Name of the newtype that takes a node by its number, to be read later.
pub const NODE: &str = "$node";

/// Most faults reported for one file.
const MOST: usize = 100;

/// Reads a document; faulty parts are left out of the result.
pub fn read<T: DeserializeOwned + Default>(document: &Document, problems: &mut Vec<Problem>) -> T {
    read_at(document, document.root, problems).unwrap_or_default()
}

/// Reads a part of a document; nothing when the whole part is faulty.
pub fn read_at<T: DeserializeOwned>(document: &Document, part: NodeId, problems: &mut Vec<Problem>) -> Option<T> {
    let mut out = HashSet::new();
    for _ in 0..MOST {
        let reader = Reader { document, out: &out, id: part };
        let fault = match T::deserialize(reader) {
            Ok(model) => return Some(model),
            Err(fault) => fault,
        };
        let Fault { id, inner, kind } = fault;
        let id = id.unwrap_or(part);
        // A key that is there and was taken out has been reported already.
        if !matches!(kind, FaultKind::Missing(field) if has_key(document, id, field)) {
            problems.push(problem(document, inner.unwrap_or(id), &kind));
        }
        if id == part || !out.insert(id) {
            break;
        }
    }
    None
}

fn has_key(document: &Document, id: NodeId, name: &str) -> bool {
    matches!(&document.node(id).kind, Kind::Mapping(entries) if entries.iter().any(|(key, _)| document.key(*key) == name))
}

fn problem(document: &Document, id: NodeId, kind: &FaultKind) -> Problem {
    let mut problem = match kind {
        FaultKind::Other(message) => {
            Problem::plain("E0104", message.clone()).help("`sluice config schema` describes what every key takes")
        }
        FaultKind::Missing(field) => {
            Problem::plain("E0105", format!("key `{field}` is missing")).help(format!("add `{field}:`"))
        }
        FaultKind::Unknown(name, known) => {
            let problem = Problem::plain("E0103", format!("unknown key `{name}`"));
            let near = known.iter().map(|k| (strsim::damerau_levenshtein(name, k), k)).min();
            problem.help(match near {
                Some((distance, near)) if distance <= 3 => format!("did you mean `{near}`?"),
                _ => format!("known keys are {}", known.join(", ")),
            })
        }
    };
    problem.at = Some(document.at(id, &document.path_of(id)));
    problem
}

/// A fault, the node that is taken out for it, and the one inside it that shows it, if that is another.
#[derive(Debug)]
pub struct Fault {
    id: Option<NodeId>,
    inner: Option<NodeId>,
    kind: FaultKind,
}

#[derive(Debug)]
enum FaultKind {
    Other(String),
    Missing(&'static str),
    Unknown(String, &'static [&'static str]),
}

impl Fault {
    fn at(mut self, id: NodeId) -> Self {
        self.id.get_or_insert(id);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { id: None, inner: None, kind: FaultKind::Other(message.to_string()) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { id: None, inner: None, kind: FaultKind::Missing(field) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self { id: None, inner: None, kind: FaultKind::Unknown(field.to_owned(), expected) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("`{variant}` is not one of {}", expected.join(", ")))
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let is = match unexpected {
            de::Unexpected::Map => "a mapping".to_owned(),
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Unit => "nothing".to_owned(),
            de::Unexpected::Str(text) => format!("the text `{text}`"),
            other => other.to_string(),
        };
        Self::custom(format!("this is {is}, expected {expected}"))
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }
}

#[derive(Clone, Copy)]
struct Reader<'d> {
    document: &'d Document,
    out: &'d HashSet<NodeId>,
    id: NodeId,
}

impl<'d> Reader<'d> {
    fn child(self, id: NodeId) -> Self {
        Self { id, ..self }
    }

    fn kind(self) -> &'d Kind {
        &self.document.node(self.id).kind
    }

    fn is_null(self) -> bool {
        matches!(self.kind(), Kind::Scalar { text, plain } if Scalar::of(text, *plain) == Scalar::Null)
    }

    fn fault(self, message: String) -> Fault {
        Fault { id: Some(self.id), inner: None, kind: FaultKind::Other(message) }
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match self.kind() {
            Kind::Scalar { text, plain } => match Scalar::of(text, *plain) {
                Scalar::Null => visitor.visit_unit(),
                Scalar::Bool(b) => visitor.visit_bool(b),
                Scalar::Number | Scalar::Foreign => match (text.parse::<u64>(), text.parse::<i64>()) {
                    (Ok(n), _) => visitor.visit_u64(n),
                    (_, Ok(n)) => visitor.visit_i64(n),
                    _ => match text.parse::<f64>() {
                        Ok(n) => visitor.visit_f64(n),
                        Err(_) => visitor.visit_str(text),
                    },
                },
                Scalar::Text => visitor.visit_str(text),
            },
            Kind::Sequence(items) => visitor.visit_seq(Items { reader: self, items: items.iter() }),
            Kind::Mapping(entries) => visitor.visit_map(Entries { reader: self, entries: entries.iter(), value: None }),
        };
        result.map_err(|fault| fault.at(self.id))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.kind() {
            // Names may look like numbers.
            Kind::Scalar { text, .. } if !self.is_null() => {
                visitor.visit_str(text).map_err(|fault: Fault| fault.at(self.id))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_null() {
            // `section:` with nothing under it.
            return visitor.visit_map(Entries { reader: self, entries: [].iter(), value: None });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if self.is_null() {
            let entries = Entries { reader: self, entries: [].iter(), value: None };
            return visitor.visit_map(entries).map_err(|fault| fault.at(self.id));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        if name == NODE {
            return visitor.visit_u64(self.id as u64);
        }
        if name != JSON {
            return visitor.visit_newtype_struct(self).map_err(|fault| fault.at(self.id));
        }
        match self.kind() {
            Kind::Scalar { text, plain: false } => visitor.visit_str(text),
            _ => match self.document.json(self.id) {
                Ok((json, _)) => visitor.visit_string(json),
                Err((inner, message)) => Err(Fault { inner: Some(inner), ..self.fault(message) }),
            },
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let result = match self.kind() {
            Kind::Scalar { text, .. } => visitor.visit_enum(text.as_str().into_deserializer()),
            Kind::Mapping(entries) => match entries.as_slice() {
                [(key, value)] => visitor.visit_enum(Variant { reader: self, key: *key, value: *value }),
                _ => Err(self.fault("expected exactly one key here".to_owned())),
            },
            Kind::Sequence(_) => Err(self.fault("this is a list, expected a word or a mapping".to_owned())),
        };
        result.map_err(|fault| fault.at(self.id))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        identifier ignored_any
    }
}

struct Items<'d> {
    reader: Reader<'d>,
    items: std::slice::Iter<'d, NodeId>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        for &id in self.items.by_ref() {
            if !self.reader.out.contains(&id) {
                return seed.deserialize(self.reader.child(id)).map(Some).map_err(|fault| fault.at(id));
            }
        }
        Ok(None)
    }
}

struct Entries<'d> {
    reader: Reader<'d>,
    entries: std::slice::Iter<'d, (NodeId, NodeId)>,
    value: Option<NodeId>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        for &(key, value) in self.entries.by_ref() {
            if !self.reader.out.contains(&key) && !self.reader.out.contains(&value) {
                self.value = Some(value);
                let name = self.reader.document.key(key);
                return seed.deserialize(name.into_deserializer()).map(Some).map_err(|fault: Fault| fault.at(key));
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let id = self.value.take().unwrap_or(self.reader.id);
        seed.deserialize(self.reader.child(id)).map_err(|fault| fault.at(id))
    }
}

struct Variant<'d> {
    reader: Reader<'d>,
    key: NodeId,
    value: NodeId,
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Reader<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Reader<'de>), Fault> {
        let name = self.reader.document.key(self.key);
        let variant = seed.deserialize(name.into_deserializer()).map_err(|fault: Fault| fault.at(self.key))?;
        Ok((variant, self.reader.child(self.value)))
    }
}

impl<'de> de::VariantAccess<'de> for Reader<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }
}
