//! Attributes of CloudEvents that name objects.

/// The attributes that the specification defines, and the two names of the data. No object is named by them.
pub const DEFINED_ATTRIBUTES: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
];

/// The extension attribute that names an object of that type: the type's name in lower case, without dots, hyphens and
/// underscores, which no attribute may have. A type that is called like an attribute of the specification has none.
pub fn attribute_of(object: &str) -> Option<String> {
    let letters = object.chars().filter(char::is_ascii_alphanumeric);
    let attribute: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    (!DEFINED_ATTRIBUTES.contains(&&*attribute)).then_some(attribute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_has_letters_in_lower_case_and_digits() {
        for (object, attribute) in [
            ("Packet", Some("packet")),
            ("Ticket-Note_2.x", Some("ticketnote2x")),
            ("Source", None),
            ("I.D", None),
        ] {
            assert_eq!(attribute_of(object).as_deref(), attribute);
        }
    }
}
