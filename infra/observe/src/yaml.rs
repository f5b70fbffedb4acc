//! Writes a template as YAML that reads well in a diff: short values on one line, texts of several
//! lines as blocks, and every other string in the quotes of JSON, so that YAML never takes one for
//! a date or a switch.

use serde_json::Value;

/// The longest value that is written on one line.
const SHORT: usize = 100;

/// A document of these sections, in this order.
pub(crate) fn document(header: &str, sections: &[(&str, Value)]) -> String {
    let mut text = header.to_owned();
    for (name, value) in sections {
        text.push('\n');
        entry(&mut text, 0, name, value);
    }
    text
}

fn entry(text: &mut String, indent: usize, name: &str, value: &Value) {
    *text += &format!("{:indent$}{name}:", "");
    nested(text, indent, value);
}

/// What follows a colon or a dash.
fn nested(text: &mut String, indent: usize, value: &Value) {
    match value {
        Value::String(lines) if lines.contains('\n') => {
            text.push_str(" |-\n");
            let inner = indent + 2;
            for line in lines.lines() {
                *text += &format!("{:inner$}{line}\n", "");
            }
        }
        Value::Object(fields) if !is_short(value) => {
            text.push('\n');
            fields.iter().for_each(|(name, value)| entry(text, indent + 2, name, value));
        }
        Value::Array(items) if !is_short(value) => {
            text.push('\n');
            for item in items {
                let inner = indent + 2;
                *text += &format!("{:inner$}-", "");
                nested(text, inner, item);
            }
        }
        short => *text += &format!(" {}\n", flow(short)),
    }
}

fn is_short(value: &Value) -> bool {
    let flat = flow(value);
    flat.len() <= SHORT && !flat.contains("\\n")
}

/// A value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), flow(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        scalar => scalar.to_string(),
    }
}
