//! Evaluates a template for given parameters: its rules, and what its conditions leave of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value, json};

use super::object;

/// The template and the parameters of one deployment.
pub(crate) struct Choice<'a> {
    template: &'a Value,
    parameters: BTreeMap<String, String>,
}

impl fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.parameters.iter().filter(|(_, value)| !value.is_empty())).finish()
    }
}

impl<'a> Choice<'a> {
    /// These parameters, and defaults for the others.
    pub(crate) fn of<'b>(template: &'a Value, parameters: impl IntoIterator<Item = (&'b str, &'b str)>) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut all: BTreeMap<String, String> = object(&template["Parameters"])
            .iter()
            .map(|(name, parameter)| (name.clone(), parameter.get("Default").map(text).unwrap_or_default()))
            .collect();
        for (name, value) in parameters {
            let default = all.insert(name.to_owned(), value.to_owned());
            assert!(default.is_some(), "no parameter {name} in the template");
        }
        Self { template, parameters: all }
    }

    /// The stack that the resource `id` nests, deployed from `template`. A name or ARN of a
    /// resource counts as its logical id.
    pub(crate) fn nested<'n>(&self, id: &str, template: &'n Value) -> Choice<'n> {
        let given = self.decide(&self.template["Resources"][id]["Properties"]["Parameters"]).unwrap();
        let given: Vec<(&String, String)> =
            object(&given).iter().map(|(name, value)| (name, self.value(value))).collect();
        Choice::of(template, given.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Whether every rule accepts them.
    pub(crate) fn accepted(&self) -> bool {
        object(&self.template["Rules"]).values().all(|rule| {
            let applies = rule.get("RuleCondition").is_none_or(|condition| self.holds(condition));
            let mut assertions = rule["Assertions"].as_array().unwrap().iter();
            !applies || assertions.all(|assertion| self.holds(&assertion["Assert"]))
        })
    }

    /// The resources that exist, with every `Fn::If` decided.
    pub(crate) fn resources(&self) -> Map<String, Value> {
        self.section("Resources")
    }

    /// The outputs that exist.
    pub(crate) fn outputs(&self) -> Map<String, Value> {
        self.section("Outputs")
    }

    fn section(&self, name: &str) -> Map<String, Value> {
        let there = |entry: &Value| entry.get("Condition").is_none_or(|condition| self.is(condition));
        let entries = object(&self.template[name]).iter().filter(|(_, entry)| there(entry));
        entries.filter_map(|(id, entry)| Some((id.clone(), self.decide(entry)?))).collect()
    }

    /// A value without its `Fn::If`s; `None` is `AWS::NoValue`.
    fn decide(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Object(fields) => {
                if let Some(arguments) = fields.get("Fn::If") {
                    return self.decide(&arguments[if self.is(&arguments[0]) { 1 } else { 2 }]);
                }
                if fields.get("Ref").is_some_and(|to| to == "AWS::NoValue") {
                    return None;
                }
                let decided = fields.iter().filter_map(|(name, value)| Some((name.clone(), self.decide(value)?)));
                Some(Value::Object(decided.collect()))
            }
            Value::Array(items) => Some(items.iter().filter_map(|item| self.decide(item)).collect()),
            scalar => Some(scalar.clone()),
        }
    }

    /// Whether the condition of this name holds.
    pub(crate) fn is(&self, condition: &Value) -> bool {
        let name = condition.as_str().unwrap_or_else(|| panic!("not the name of a condition: {condition}"));
        let expression = self.template["Conditions"].get(name);
        self.holds(expression.unwrap_or_else(|| panic!("no condition {name} in the template")))
    }

    fn holds(&self, expression: &Value) -> bool {
        let (function, arguments) = object(expression).iter().next().unwrap();
        if function == "Condition" {
            return self.is(arguments);
        }
        let arguments = arguments.as_array().unwrap();
        match function.as_str() {
            "Fn::Equals" => self.text(&arguments[0]) == self.text(&arguments[1]),
            "Fn::Not" => !self.holds(&arguments[0]),
            "Fn::And" => arguments.iter().all(|argument| self.holds(argument)),
            "Fn::Or" => arguments.iter().any(|argument| self.holds(argument)),
            other => panic!("conditions with {other} are not supported here"),
        }
    }

    fn text(&self, value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            reference => self.parameters[reference["Ref"].as_str().unwrap()].clone(),
        }
    }

    /// What a nested stack gets for a parameter.
    fn value(&self, value: &Value) -> String {
        if let Some([between, parts]) = value["Fn::Join"].as_array().map(Vec::as_slice) {
            let parts = parts.as_array().unwrap().iter().map(|part| self.value(part));
            return parts.collect::<Vec<_>>().join(between.as_str().unwrap());
        }
        let reference = value.get("Ref").or_else(|| value["Fn::GetAtt"].get(0)).or_else(|| value.get("Fn::Sub"));
        let text = reference.unwrap_or(value).as_str().unwrap_or_else(|| panic!("{value} is not a parameter's value"));
        self.parameters.get(text).map_or(text, String::as_str).to_owned()
    }
}

/// The names that a value refers to by `Ref`, `Fn::GetAtt`, `Fn::Sub` or `DependsOn`.
pub(crate) fn referred(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(referred).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("Ref" | "DependsOn", Value::String(to)) => BTreeSet::from([of_alias(to)]),
                ("DependsOn", Value::Array(all)) => all.iter().map(|to| of_alias(to.as_str().unwrap())).collect(),
                ("Fn::GetAtt", Value::Array(path)) => BTreeSet::from([path[0].as_str().unwrap().to_owned()]),
                ("Fn::Sub", Value::String(text)) => in_text(text, &json!({})),
                ("Fn::Sub", Value::Array(parts)) => {
                    let mut found = in_text(parts[0].as_str().unwrap(), &parts[1]);
                    found.extend(referred(&parts[1]));
                    found
                }
                _ => referred(value),
            })
            .collect(),
        _ => BTreeSet::new(),
    }
}

/// The function of an alias, which SAM creates: `F` of `F.Alias` and of `FAliaslive`.
fn of_alias(name: &str) -> String {
    name.trim_end_matches(".Alias").trim_end_matches("Aliaslive").to_owned()
}

/// `Api` and `Stage` of `${Api.Arn}/${Stage}/${!Text}`, without names that are defined in `own`.
fn in_text(text: &str, own: &Value) -> BTreeSet<String> {
    let names = text.split("${").skip(1).map(|rest| rest.split(['}', '.']).next().unwrap());
    names.filter(|name| !name.starts_with('!') && own.get(name).is_none()).map(str::to_owned).collect()
}

#[test]
fn references_are_found_in_every_form() {
    let value = json!({
        "DependsOn": ["A", "GAliaslive"],
        "List": [{ "Ref": "B.Alias" }, { "Fn::GetAtt": ["C", "Arn"] }, "D"],
        "Sub": { "Fn::Sub": ["x${E.Arn}-${Own}-${AWS::Region}-${!Text}", { "Own": { "Fn::Sub": "${F}" } }] }
    });
    assert_eq!(referred(&value), ["A", "AWS::Region", "B", "C", "E", "F", "G"].map(str::to_owned).into());
}
