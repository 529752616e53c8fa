//! csi.proto, as compiled, is what the published protocol is on the wire: every name, number and type of the table,
//! and nothing else.

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::Label, field_descriptor_proto::Type,
};
use std::collections::BTreeSet;

const FACTS: &str = include_str!("fixtures/csi-v1-wire.tsv");
const PACKAGE: &str = ".csi.v1.";

/// One fact: kind, owner, name, number, type, oneof.
type Fact = (String, String, String, String, String, String);

fn facts_of_the_table() -> BTreeSet<Fact> {
    let rows = FACTS.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.map(|row| {
        let mut cells = row.split('\t').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let mut cell = || cells.next().unwrap();
        let (kind, owner, name, number, kind_of_value, notes) = (cell(), cell(), cell(), cell(), cell(), cell());
        let oneof = notes.split(' ').find_map(|note| note.strip_prefix("oneof=")).unwrap_or_default().to_owned();
        (kind, owner, name, number, kind_of_value, oneof)
    })
    .collect()
}

fn short(name: &str) -> String {
    name.strip_prefix(PACKAGE).unwrap_or(name.trim_start_matches('.')).to_owned()
}

fn type_of(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::String => "string".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Message | Type::Enum => short(field.type_name()),
        other => format!("{other:?}"),
    };
    match field.label() {
        Label::Repeated if name.ends_with("Entry") && name.contains('.') && is_map_entry(field) => {
            "map<string,string>".to_owned()
        }
        Label::Repeated => format!("repeated {name}"),
        _ => name,
    }
}

/// prost keeps `map` fields as repeated messages named after the field; real messages named Entry belong to list
/// responses.
fn is_map_entry(field: &FieldDescriptorProto) -> bool {
    let camel: String = field.name().split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    field.type_name().ends_with(&format!(".{camel}Entry"))
}

fn collect_enum(owner: &str, item: &EnumDescriptorProto, facts: &mut BTreeSet<Fact>) {
    let full = join(owner, item.name());
    for value in &item.value {
        let number = value.number().to_string();
        facts.insert(("enum".into(), full.clone(), value.name().into(), number, String::new(), String::new()));
    }
}

fn join(owner: &str, name: &str) -> String {
    if owner.is_empty() { name.to_owned() } else { format!("{owner}.{name}") }
}

fn collect_message(owner: &str, message: &DescriptorProto, facts: &mut BTreeSet<Fact>) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let full = join(owner, message.name());
    let shown_owner = if owner.is_empty() { "-" } else { owner };
    let none = String::new;
    facts.insert(("message".into(), shown_owner.into(), message.name().into(), none(), none(), none()));
    for field in &message.field {
        let oneof = field.oneof_index.map(|i| message.oneof_decl[i as usize].name().to_owned()).unwrap_or_default();
        let number = field.number().to_string();
        facts.insert(("field".into(), full.clone(), field.name().into(), number, type_of(field), oneof));
    }
    message.enum_type.iter().for_each(|item| collect_enum(&full, item, facts));
    message.nested_type.iter().for_each(|nested| collect_message(&full, nested, facts));
}

fn collect_services(file: &FileDescriptorProto, facts: &mut BTreeSet<Fact>) {
    let none = String::new;
    for service in &file.service {
        facts.insert(("service".into(), "-".into(), service.name().into(), none(), none(), none()));
        for method in &service.method {
            let stream = if method.server_streaming() { "stream " } else { "" };
            let shape = format!("{} -> {stream}{}", short(method.input_type()), short(method.output_type()));
            facts.insert(("rpc".into(), service.name().into(), method.name().into(), none(), shape, none()));
        }
    }
}

fn facts_of_the_descriptors() -> BTreeSet<Fact> {
    let set = FileDescriptorSet::decode(ashlar_rpc::csi::DESCRIPTORS).expect("descriptors decode");
    let file = set.file.iter().find(|file| file.package() == "csi.v1").expect("csi.v1 is compiled");
    let mut facts = BTreeSet::new();
    for extension in &file.extension {
        let owner = extension.extendee().trim_start_matches('.').to_owned();
        let number = extension.number().to_string();
        facts.insert(("extension".into(), owner, extension.name().into(), number, type_of(extension), String::new()));
    }
    collect_services(file, &mut facts);
    file.enum_type.iter().for_each(|item| collect_enum("", item, &mut facts));
    file.message_type.iter().for_each(|message| collect_message("", message, &mut facts));
    facts
}

#[test]
fn every_wire_fact_is_in_the_descriptors_and_no_other() {
    let table = facts_of_the_table();
    let compiled = facts_of_the_descriptors();
    let missing: Vec<_> = table.difference(&compiled).collect();
    let extra: Vec<_> = compiled.difference(&table).collect();
    assert!(table.len() > 300, "the table has {} rows", table.len());
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
}
