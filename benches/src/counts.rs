//! Counts of a peer, which it prints as one line of JSON.

use serde_json::{Map, Value};

/// Adds up objects of counts, key by key.
#[must_use]
pub fn total(objects: impl IntoIterator<Item = Value>) -> Value {
    let mut total = Map::new();
    for (key, value) in objects.into_iter().filter_map(|object| object.as_object().cloned()).flatten() {
        let sum = match (total.get(&key).and_then(Value::as_u64), value.as_u64()) {
            (Some(one), Some(other)) => (one + other).into(),
            _ => value,
        };
        total.insert(key, sum);
    }
    total.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_of_the_same_key_are_added_up() {
        let objects = [json!({"a": 1, "b": 2}), json!({"b": 3, "s": 0.5})];
        assert_eq!(total(objects), json!({"a": 1, "b": 5, "s": 0.5}));
    }
}
