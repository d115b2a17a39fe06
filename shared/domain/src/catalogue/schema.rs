//! JSON Schemas of registered event types.

mod cost;

use crate::problem::{Fault, Faults};
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// The longest schema, in bytes of its JSON text.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// The draft by which schemas are read.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The most bytes that a pattern may take when it is compiled: a text takes time in proportion to them, too.
const MAX_PATTERN_BYTES: usize = 32 * 1024;

/// The most characters of a pattern that a fault shows.
const MAX_SHOWN_CHARS: usize = 100;

/// A JSON Schema (draft 2020-12). It is compiled when it is first used.
#[derive(Clone)]
pub struct Schema {
    text: Arc<str>,
    compiled: Arc<OnceLock<Option<Compiled>>>,
}

struct Compiled {
    validator: jsonschema::Validator,
    /// How many parts it has when its references are followed.
    parts: usize,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Schema").field(&self.text).finish()
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Refuses what a reference names outside of the schema: nothing is fetched.
#[derive(Debug)]
struct NothingElse;

impl jsonschema::Retrieve for NothingElse {
    fn retrieve(&self, uri: &jsonschema::Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is outside of the schema; a reference may name a part of it alone").into())
    }
}

fn compile(schema: &Value, parts: usize) -> Result<Compiled, String> {
    let options = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_retriever(NothingElse)
        // Without look-around and back references, so that a text takes time in proportion to its length.
        .with_pattern_options(
            jsonschema::PatternOptions::regex()
                .size_limit(MAX_PATTERN_BYTES)
                .dfa_size_limit(MAX_PATTERN_BYTES),
        );
    let validator = options.build(schema).map_err(|error| why(&error))?;
    Ok(Compiled { validator, parts })
}

/// Why it is no schema, in words. Of a pattern the library says only that it is none.
fn why(error: &jsonschema::ValidationError<'_>) -> String {
    let is_pattern = matches!(error.kind(), ValidationErrorKind::Format { format } if format == "regex");
    let Some(pattern) = error.instance().as_str().filter(|_| is_pattern) else {
        return format!("Schema is no JSON Schema (draft 2020-12): {error}");
    };
    let looks_around = ["(?=", "(?!", "(?<=", "(?<!"]
        .into_iter()
        .any(|sign| pattern.contains(sign));
    let mut pairs = pattern.as_bytes().windows(2);
    let refers_back = pairs.any(|pair| matches!(pair, [b'\\', b'1'..=b'9' | b'k']));
    let rule = if looks_around || refers_back {
        "has look-around or a back reference, for which a check may take too long; say it with several patterns in allOf, \
         or in not"
            .to_owned()
    } else {
        format!(
            "is no regular expression, or has more than {MAX_PATTERN_BYTES} bytes when it is compiled; repeat less in it, \
             and bound the length of a text with maxLength"
        )
    };
    let shown: String = pattern.chars().take(MAX_SHOWN_CHARS).collect();
    format!("Schema: the pattern {shown} {rule}")
}

impl Schema {
    /// A schema that was checked when it was registered.
    pub fn registered(text: &str) -> Self {
        Self {
            text: text.into(),
            compiled: Arc::default(),
        }
    }

    /// Checks a schema that is to be registered.
    pub fn parse(schema: &Value) -> Result<Self, Fault> {
        if !schema.is_object() {
            let detail = "Schema must be a JSON Schema (draft 2020-12): an object";
            return Err(Fault::new("/Schema", "schema", detail));
        }
        let draft = schema
            .get("$schema")
            .map(|named| named.as_str().unwrap_or_default().trim_end_matches('#'));
        if draft.is_some_and(|draft| draft != DRAFT) {
            let detail = format!("Schema is read as {DRAFT}; leave $schema out, or name that");
            return Err(Fault::new("/Schema/$schema", "schema", detail));
        }
        let text = schema.to_string();
        if text.len() > MAX_SCHEMA_BYTES {
            let detail = format!("Schema may have at most {MAX_SCHEMA_BYTES} bytes, not {}", text.len());
            return Err(Fault::new("/Schema", "max_bytes", detail));
        }
        let fault = |why| Fault::new("/Schema", "schema", why);
        let compiled = compile(schema, cost::check(schema).map_err(fault)?).map_err(fault)?;
        Ok(Self {
            text: text.into(),
            compiled: Arc::new(OnceLock::from(Some(compiled))),
        })
    }

    /// Its JSON text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What of `data` does not fit; pointers begin with `parent`.
    pub fn check(&self, data: &Value, parent: &str, faults: &mut Faults) {
        let compiled = self.compiled.get_or_init(|| {
            let schema = serde_json::from_str(&self.text).ok()?;
            // An earlier version may have taken one that is refused now. Its events go on, within the bound on the work.
            compile(&schema, cost::check(&schema).unwrap_or(cost::MAX_PARTS)).ok()
        });
        let Some(Compiled { validator, parts }) = compiled else {
            // It compiled when it was registered. What it says cannot be known, so nothing fits it.
            let detail = "the event type's schema cannot be read; an operator registers it again";
            return faults.add(parent, "schema", detail);
        };
        let lists = match cost::check_data(*parts, data) {
            Ok(lists) => lists,
            Err(why) => return faults.add(parent, "schema_cost", why),
        };
        // To say what does not fit takes many times as long as to find that something does not.
        if validator.is_valid(data) {
            return;
        }
        let mut add = |error: jsonschema::ValidationError<'_>| {
            faults.push_with(|| {
                let pointer = format!("{parent}{}", error.instance_path());
                Fault::new(pointer, "schema", error.masked().to_string())
            });
        };
        if lists {
            validator.iter_errors(data).for_each(add);
        } else if let Err(first) = validator.validate(data) {
            add(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(schema: &Value, data: &Value) -> Vec<(String, String)> {
        let mut faults = Faults::default();
        Schema::parse(schema).unwrap().check(data, "/Data", &mut faults);
        let listed = faults.into_listed().into_iter();
        listed.map(|fault| (fault.pointer, fault.detail)).collect()
    }

    #[test]
    fn what_does_not_fit_is_pointed_to() {
        let schema = json!({"type": "object", "required": ["Number"], "properties": {"Number": {"type": "integer"}}});
        assert_eq!(faults(&schema, &json!({"Number": 1, "More": true})), []);
        let wrong = faults(&schema, &json!({"Number": "secret"}));
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].0, "/Data/Number");
        // What the producer sent may be nobody's business but its own.
        assert!(!wrong[0].1.contains("secret"), "{wrong:?}");
        assert_eq!(faults(&schema, &json!({}))[0].0, "/Data");
    }

    #[test]
    fn what_is_no_schema_is_refused_and_nothing_is_fetched() {
        let parse = |schema: Value| Schema::parse(&schema).map(|_| ()).map_err(|fault| fault.rule);
        assert_eq!(parse(json!({"type": "objekt"})), Err("schema"));
        assert_eq!(parse(json!([])), Err("schema"));
        assert_eq!(parse(json!(true)), Err("schema"));
        assert_eq!(
            parse(json!({"$schema": "http://json-schema.org/draft-07/schema#"})),
            Err("schema")
        );
        assert_eq!(
            parse(json!({"$schema": "https://json-schema.org/draft/2020-12/schema"})),
            Ok(())
        );
        assert_eq!(parse(json!({"pattern": "((a{1,100}){1,100}){1,90}b"})), Err("schema"));
        assert_eq!(parse(json!({"pattern": "^[A-Z]{2}[0-9]{2}[A-Z0-9]{1,30}$"})), Ok(()));
        assert_eq!(parse(json!({"$ref": "https://example.com/other"})), Err("schema"));
        assert_eq!(parse(json!({"$ref": "other.json"})), Err("schema"));
        assert_eq!(parse(json!({"pattern": "(a"})), Err("schema"));
        assert_eq!(
            parse(json!({"description": "x".repeat(MAX_SCHEMA_BYTES)})),
            Err("max_bytes")
        );
        assert_eq!(
            parse(json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}})),
            Ok(())
        );
    }

    #[test]
    fn a_fault_of_a_schema_says_what_would_be_right() {
        for (schema, words) in [
            (
                json!({"$ref": "#/$defs/none"}),
                "Schema: the reference #/$defs/none leads to no part",
            ),
            (json!({"type": "objekt"}), "Schema is no JSON Schema"),
            (json!({"pattern": "^(?=.*[0-9]).{8,}$"}), "several patterns in allOf"),
            (json!({"pattern": r"^(.)\1$"}), "a back reference"),
            (json!({"pattern": "((a{1,100}){1,100}){1,90}b"}), "repeat less"),
        ] {
            let fault = Schema::parse(&schema).unwrap_err();
            assert_eq!(fault.pointer, "/Schema");
            assert!(
                fault.detail.contains(words) && fault.detail.starts_with("Schema"),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn one_that_an_earlier_version_took_is_gone_by_still() {
        let objects: Vec<_> = (0..5000).map(|n| json!({"k": n})).collect();
        let costly = json!({"properties": {"A": {"enum": objects}}});
        assert!(Schema::parse(&costly).is_err());
        let registered = Schema::registered(&costly.to_string());
        for (data, rules) in [
            (json!({"A": {"k": 4999}}), vec![]),
            (json!({"A": 1}), vec!["schema"]),
            (json!({"A": vec![0; 1000]}), vec!["schema_cost"]),
        ] {
            let mut faults = Faults::default();
            registered.check(&data, "/Data", &mut faults);
            let found: Vec<_> = faults.into_listed().into_iter().map(|fault| fault.rule).collect();
            assert_eq!(found, rules);
        }
    }

    #[test]
    fn of_costly_data_the_first_fault_alone_is_told() {
        let schema = json!({"items": {"allOf": vec![json!({"type": "string"}); 1000]}});
        assert_eq!(faults(&schema, &json!([1, 2])).len(), 100);
        let found = faults(&schema, &Value::from(vec![1; 500]));
        assert_eq!((found.len(), &*found[0].0), (1, "/Data/0"));
        assert_eq!(faults(&schema, &Value::from(vec!["a"; 500])), []);
    }

    #[test]
    fn a_registered_one_is_the_same_when_it_is_read_again() {
        let schema = Schema::parse(&json!({"maxProperties": 0})).unwrap();
        let again = Schema::registered(schema.text());
        let mut faults = Faults::default();
        again.check(&json!({"A": 1}), "/Data", &mut faults);
        assert_eq!((&again, faults.count()), (&schema, 1));
    }
}
