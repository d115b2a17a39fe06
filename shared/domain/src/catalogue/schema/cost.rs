//! Whether a schema can be checked in a time that grows with the schema and with the data, and not faster.
//!
//! A schema is a graph: its parts lead to other parts, by keywords and by references. Two things make a validator take
//! exponential time. References that lead to one part in many ways are followed once for each way: [`MAX_PARTS`] bounds
//! that. And a part that leads back to itself in two ways looks at each value below it twice, at each below that four
//! times, and so on: that is refused.

use serde_json::{Map, Value};
use std::collections::HashMap;

/// The most parts that a schema may have when its references are followed. What a part compares a value with, one after
/// the other, counts like parts: required names, and the values in objects and arrays of `enum` and `const`.
pub(super) const MAX_PARTS: usize = 4096;

/// The most steps that a check may take, which are the schema's parts times the data's values. The thread does nothing else
/// meanwhile.
const MAX_STEPS: usize = 4_000_000;

/// The most steps after which all that does not fit is listed, and not the first fault alone.
const MAX_STEPS_TO_LIST: usize = 100_000;

/// The most patterns that a schema may have; each text is matched against those that concern it.
const MAX_PATTERNS: usize = 64;

/// Keywords whose value is one schema for the value itself.
const SAME: [&str; 4] = ["not", "if", "then", "else"];

/// Keywords whose value is a list or map of schemas for the value itself.
const SAME_SEVERAL: [&str; 4] = ["allOf", "anyOf", "oneOf", "dependentSchemas"];

/// Keywords whose schemas share the values below among themselves: each of those is looked at by one of them.
const SHARED: [&str; 4] = ["properties", "additionalProperties", "prefixItems", "items"];

/// Keywords whose schemas look at values below that others look at too.
const BESIDE: [&str; 5] = [
    "patternProperties",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// One way from a part to others: to several where they share what they look at.
type Way = Vec<usize>;

/// The parts of a schema, each with its ways to others.
struct Graph<'a> {
    /// Where each part stands, as a JSON pointer.
    pointers: Vec<String>,
    parts: Vec<&'a Value>,
    /// How many parts each counts for.
    weights: Vec<usize>,
    ways: Vec<Vec<Way>>,
    by_pointer: HashMap<String, usize>,
    by_anchor: HashMap<&'a str, Vec<usize>>,
    /// How many `pattern`s there are, and names in `patternProperties`.
    patterns: usize,
}

/// How many parts the schema has when its references are followed. Refuses, in words, a schema whose check may take
/// exponential time, and one with a reference to what is no part of it.
pub(super) fn check(schema: &Value) -> Result<usize, String> {
    let mut graph = Graph {
        pointers: Vec::new(),
        parts: Vec::new(),
        weights: Vec::new(),
        ways: Vec::new(),
        by_pointer: HashMap::new(),
        by_anchor: HashMap::new(),
        patterns: 0,
    };
    graph.add(schema, "")?;
    if graph.patterns > MAX_PATTERNS {
        return Err(format!(
            "Schema has {} patterns; it may have at most {MAX_PATTERNS}",
            graph.patterns
        ));
    }
    graph.connect()?;
    graph.judge()
}

impl<'a> Graph<'a> {
    /// Adds a part, and those in it.
    fn add(&mut self, schema: &'a Value, pointer: &str) -> Result<usize, String> {
        let number = self.parts.len();
        if number == MAX_PARTS {
            return Err(too_many());
        }
        self.parts.push(schema);
        self.weights.push(weight(schema));
        self.pointers.push(pointer.to_owned());
        self.ways.push(Vec::new());
        self.by_pointer.insert(pointer.to_owned(), number);
        let Value::Object(fields) = schema else {
            return Ok(number);
        };
        if number > 0 && fields.contains_key("$id") {
            return Err(format!("Schema{pointer}/$id: only the whole schema may have an $id"));
        }
        for name in ["$anchor", "$dynamicAnchor"] {
            if let Some(anchor) = fields.get(name).and_then(Value::as_str) {
                self.by_anchor.entry(anchor).or_default().push(number);
            }
        }
        let mut ways = Vec::new();
        let mut shared = Way::new();
        for (name, value) in fields {
            self.patterns += match (name.as_str(), value) {
                ("pattern", _) => 1,
                ("patternProperties", Value::Object(named)) => named.len(),
                _ => 0,
            };
            let below = self.below(name, value, pointer)?;
            if SHARED.contains(&name.as_str()) {
                shared.extend(below);
            } else if name != "$defs" && name != "definitions" {
                ways.extend(below.into_iter().map(|part| vec![part]));
            }
        }
        ways.push(shared);
        self.ways[number] = ways;
        Ok(number)
    }

    /// Adds the parts in the value of a keyword.
    fn below(&mut self, name: &str, value: &'a Value, pointer: &str) -> Result<Vec<usize>, String> {
        let at = |key: &str| format!("{pointer}/{name}/{}", key.replace('~', "~0").replace('/', "~1"));
        let is_map = [
            "$defs",
            "definitions",
            "properties",
            "patternProperties",
            "dependentSchemas",
        ]
        .contains(&name);
        let known = SAME.contains(&name) || SAME_SEVERAL.contains(&name) || SHARED.contains(&name);
        if !(is_map || known || BESIDE.contains(&name)) {
            return Ok(Vec::new());
        }
        match value {
            Value::Array(several) => {
                let several = several.iter().enumerate();
                several.map(|(n, part)| self.add(part, &at(&n.to_string()))).collect()
            }
            Value::Object(named) if is_map => named.iter().map(|(key, part)| self.add(part, &at(key))).collect(),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Ok(vec![self.add(value, &format!("{pointer}/{name}"))?])
            }
        }
    }

    /// Adds the ways that references make.
    fn connect(&mut self) -> Result<(), String> {
        for number in 0..self.parts.len() {
            let Some(fields) = self.parts[number].as_object() else {
                continue;
            };
            for target in targets(fields) {
                let found = match target.strip_prefix('#') {
                    Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                        self.by_pointer.get(pointer).map(|part| vec![*part])
                    }
                    Some(anchor) => self.by_anchor.get(anchor).cloned(),
                    None => None,
                };
                let Some(found) = found else {
                    return Err(format!(
                        "Schema{}: the reference {target} leads to no part of the schema; one such as #/$defs/name does",
                        self.pointers[number]
                    ));
                };
                self.ways[number].extend(found.into_iter().map(|part| vec![part]));
            }
        }
        Ok(())
    }

    fn judge(&self) -> Result<usize, String> {
        let rings = self.rings();
        for (number, ways) in self.ways.iter().enumerate() {
            let leads_back = |way: &&Way| {
                way.iter()
                    .any(|part| rings[*part] == rings[number] && self.is_ring(*part, &rings))
            };
            if ways.iter().filter(leads_back).count() > 1 {
                return Err(format!(
                    "Schema{} leads back to itself in more than one way, so that checking deep data would take too long; let one \
                     keyword alone lead back, such as properties or items",
                    self.pointers[number]
                ));
            }
        }
        match self.count(0, &rings) {
            parts if parts > MAX_PARTS => Err(too_many()),
            parts => Ok(parts),
        }
    }

    /// The number of the ring that each part is in: parts that lead to one another are in one.
    fn rings(&self) -> Vec<usize> {
        // Kosaraju's algorithm, with stacks of its own: a schema may be deep.
        let count = self.parts.len();
        let (mut order, mut seen) = (Vec::with_capacity(count), vec![false; count]);
        for start in 0..count {
            let mut stack = vec![(start, false)];
            while let Some((part, is_done)) = stack.pop() {
                if is_done {
                    order.push(part);
                } else if !std::mem::replace(&mut seen[part], true) {
                    stack.push((part, true));
                    stack.extend(self.ways[part].iter().flatten().map(|next| (*next, false)));
                }
            }
        }
        let mut back = vec![Vec::new(); count];
        for (part, ways) in self.ways.iter().enumerate() {
            for next in ways.iter().flatten() {
                back[*next].push(part);
            }
        }
        let mut rings = vec![usize::MAX; count];
        for start in order.into_iter().rev() {
            let mut stack = vec![start];
            while let Some(part) = stack.pop() {
                if rings[part] == usize::MAX {
                    rings[part] = start;
                    stack.extend(back[part].iter().copied());
                }
            }
        }
        rings
    }

    /// Whether the part leads back to itself.
    fn is_ring(&self, part: usize, rings: &[usize]) -> bool {
        self.ways[part].iter().flatten().any(|next| rings[*next] == rings[part])
    }

    /// How many parts are looked at below one, references followed, each ring once.
    fn count(&self, part: usize, rings: &[usize]) -> usize {
        let mut counted = HashMap::new();
        // From the leaves up, so that nothing recurses: parts in the order in which they are done.
        let (mut stack, mut open) = (vec![(part, false)], vec![false; self.parts.len()]);
        while let Some((part, is_done)) = stack.pop() {
            let next = || {
                self.ways[part]
                    .iter()
                    .flatten()
                    .filter(|next| rings[**next] != rings[part] || **next > part)
            };
            if is_done {
                let below = next().map(|next| counted.get(next).copied().unwrap_or(self.weights[*next]));
                let sum = below.fold(self.weights[part], usize::saturating_add).min(MAX_PARTS + 1);
                counted.insert(part, sum);
            } else if !std::mem::replace(&mut open[part], true) {
                stack.push((part, true));
                stack.extend(next().filter(|next| !open[**next]).map(|next| (*next, false)));
            }
        }
        counted.get(&part).copied().unwrap_or(self.weights[part])
    }
}

/// How many parts a part counts for, those below it left out.
fn weight(part: &Value) -> usize {
    let Value::Object(fields) = part else { return 1 };
    // Texts and numbers are looked up, not compared one by one.
    let compared = |value: &Value| {
        if value.is_object() || value.is_array() {
            values(value)
        } else {
            0
        }
    };
    let weight = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("required", Value::Array(names)) => names.len(),
        ("dependentRequired", value) => values(value),
        ("enum", Value::Array(several)) => several.iter().map(compared).sum(),
        ("const", value) => compared(value),
        _ => 0,
    };
    1 + fields.iter().map(weight).sum::<usize>()
}

/// How many values there are in a value, itself counted too.
fn values(value: &Value) -> usize {
    let (mut count, mut open) = (0, vec![value]);
    while let Some(value) = open.pop() {
        count += 1;
        match value {
            Value::Array(several) => open.extend(several),
            Value::Object(named) => open.extend(named.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    count
}

/// Whether there is time to list all faults of data that is checked by a schema of so many parts. Refuses, in words, data
/// whose check would take too long.
pub(super) fn check_data(parts: usize, data: &Value) -> Result<bool, String> {
    let values = values(data);
    let steps = parts.saturating_mul(values);
    if steps <= MAX_STEPS {
        return Ok(steps <= MAX_STEPS_TO_LIST);
    }
    Err(format!(
        "Data has {values} values, and the event type's schema {parts} parts: their product may be at most {MAX_STEPS}, so \
         that checking ends soon; send less in one event, or have an operator register a simpler schema"
    ))
}

fn targets(fields: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let names = ["$ref", "$dynamicRef"];
    names.into_iter().filter_map(|name| fields.get(name)?.as_str())
}

fn too_many() -> String {
    format!(
        "Schema has more than {MAX_PARTS} parts when its references are followed, objects in enum and required names \
         counted too"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_leads_back_in_one_way_is_taken() {
        let list = json!({"properties": {"Next": {"$ref": "#"}, "Value": {}}});
        let tree = json!({
            "$ref": "#/$defs/node",
            "$defs": {"node": {"type": "object", "properties": {"Left": {"$ref": "#/$defs/node"}, "Right": {"$ref": "#/$defs/node"}}}},
        });
        let json_like = json!({"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}});
        let anchored = json!({"$anchor": "top", "items": {"$ref": "#top"}});
        let used_twice = json!({"properties": {"A": {"$ref": "#/$defs/x"}, "B": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "string"}}});
        for schema in [json!(true), list, tree, json_like, anchored, used_twice] {
            assert!(check(&schema).is_ok(), "{schema}");
        }
    }

    #[test]
    fn what_leads_back_in_two_ways_is_refused() {
        let twice = json!({"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]});
        let beside = json!({"properties": {"a": {"$ref": "#"}}, "patternProperties": {"^a": {"$ref": "#"}}});
        let contains = json!({"items": {"$ref": "#"}, "contains": {"$ref": "#"}});
        let through = json!({
            "$defs": {
                "a": {"allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}]},
                "b": {"additionalProperties": {"$ref": "#/$defs/a"}},
            },
            "$ref": "#/$defs/a",
        });
        for schema in [twice, beside, contains, through] {
            assert!(check(&schema).unwrap_err().contains("more than one way"), "{schema}");
        }
    }

    #[test]
    fn what_grows_by_its_references_is_refused() {
        let mut defs = Map::new();
        for n in 0..20 {
            let next = format!("#/$defs/d{}", n + 1);
            defs.insert(format!("d{n}"), json!({"allOf": [{"$ref": next}, {"$ref": next}]}));
        }
        defs.insert("d20".to_owned(), json!({"type": "string"}));
        let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert!(check(&schema).unwrap_err().contains("parts"));
        let flat: Vec<_> = (0..MAX_PARTS).map(|_| json!({})).collect();
        assert!(check(&json!({"allOf": flat})).unwrap_err().contains("parts"));
    }

    #[test]
    fn what_is_compared_one_by_one_counts() {
        let objects: Vec<_> = (0..100).map(|n| json!({"k": n})).collect();
        let many = |count| {
            let each: Vec<_> = (0..count).map(|_| json!({"$ref": "#/$defs/e"})).collect();
            json!({"anyOf": each, "$defs": {"e": {"enum": objects}}})
        };
        assert_eq!(check(&many(2)), Ok(1 + 2 * (1 + 1 + 200)));
        assert!(check(&many(100)).unwrap_err().contains("parts"));
        let codes: Vec<_> = (0..10_000).map(|n| n.to_string()).collect();
        assert_eq!(check(&json!({"items": {"enum": codes}})), Ok(2), "texts are looked up");
        assert_eq!(
            check(&json!({"required": ["A", "B"], "const": {"A": [1, 2]}})),
            Ok(1 + 2 + 4)
        );
    }

    #[test]
    fn what_would_be_checked_for_too_long_is_refused() {
        let data = Value::from(vec![0; 999]);
        assert_eq!(check_data(100, &data), Ok(true));
        assert_eq!(check_data(4000, &data), Ok(false), "the first fault alone");
        assert!(check_data(4001, &data).unwrap_err().contains("Data has 1000 values"));
    }

    #[test]
    fn a_reference_leads_to_a_part() {
        for target in [
            "#/$defs/none",
            "#none",
            "https://example.com/a",
            "other.json",
            "#/title",
        ] {
            let schema = json!({"title": "x", "properties": {"a": {"$ref": target}}});
            assert!(check(&schema).unwrap_err().contains("leads to no part"), "{target}");
        }
    }

    #[test]
    fn a_nested_id_is_refused() {
        assert_eq!(check(&json!({"$id": "https://example.com/a"})), Ok(1));
        assert!(
            check(&json!({"properties": {"a": {"$id": "b"}}}))
                .unwrap_err()
                .contains("$id")
        );
    }
}
