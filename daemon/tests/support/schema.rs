//! JSON against the schemas that the tool is installed with.
//!
//! Knows the part of JSON Schema that these use; a keyword that it does not know is a fault of the
//! schema, so that nothing is said there that nobody checks. In answers of ours each property must
//! be described: `properties` counts as the whole of an object.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Returns all that is wrong with `value` by the schema of this name; nothing where it is right
pub(crate) fn faults(name: &str, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(&schema(name), value, "answer", &mut faults);
    faults
}

/// Where the schemas are
pub(crate) fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ctl/schema")
}

fn schema(name: &str) -> Value {
    let file = place().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file:?}: {error}"))
}

fn check(schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    for (keyword, wanted) in schema.as_object().unwrap() {
        let mut fail = |what: String| faults.push(format!("{at}: {what}"));
        match keyword.as_str() {
            "$schema" | "title" | "description" => {}
            "$ref" => {
                let file = wanted.as_str().unwrap().trim_end_matches(".json");
                return check(&self::schema(file), value, at, faults);
            }
            "type" => {
                let one = |kind: &Value| is_of(kind.as_str().unwrap(), value);
                if !wanted.as_array().map_or_else(|| one(wanted), |all| all.iter().any(one)) {
                    fail(format!("{value} is not of type {wanted}"));
                }
            }
            "const" if wanted != value => fail(format!("{value} is not {wanted}")),
            "const" => {}
            "enum" if !wanted.as_array().unwrap().contains(value) => {
                fail(format!("{value} is none of {wanted}"));
            }
            "enum" => {}
            "minimum" if value.as_f64().is_some_and(|it| it < wanted.as_f64().unwrap()) => {
                fail(format!("{value} is less than {wanted}"));
            }
            "maximum" if value.as_f64().is_some_and(|it| it > wanted.as_f64().unwrap()) => {
                fail(format!("{value} is more than {wanted}"));
            }
            "minimum" | "maximum" => {}
            "anyOf" => check_any(wanted, value, at, faults),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(wanted, item, &format!("{at}[{index}]"), faults);
                }
            }
            "required" | "properties" | "additionalProperties" => {}
            other => panic!("{at}: no test knows the keyword {other:?}"),
        }
    }
    check_object(schema, value, at, faults);
}

fn check_object(schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let Some(object) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            faults.push(format!("{at}: there is no {name}"));
        }
    }
    let described =
        ["properties", "additionalProperties"].iter().any(|key| schema[*key].is_object());
    for (name, value) in object {
        let inner = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (inner_schema @ Value::Object(_), _) | (_, inner_schema @ Value::Object(_)) => {
                check(inner_schema, value, &inner, faults);
            }
            _ if described => faults.push(format!("{inner}: is not described")),
            _ => {}
        }
    }
}

fn check_any(schemas: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let mut all = Vec::new();
    for schema in schemas.as_array().unwrap() {
        let mut here = Vec::new();
        check(schema, value, at, &mut here);
        if here.is_empty() {
            return;
        }
        all.extend(here);
    }
    faults.push(format!("{at}: fits none: {}", all.join("; ")));
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        other => panic!("no test knows the type {other:?}"),
    }
}
