//! Rules that every .proto file keeps, read from the compiled descriptors.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto};

fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(proto::DESCRIPTORS)
        .expect("made by the build script")
        .file
}

/// Every message with its full name, nested ones too, without the entries that stand for maps.
fn messages() -> BTreeMap<String, DescriptorProto> {
    fn walk(scope: &str, message: &DescriptorProto, found: &mut BTreeMap<String, DescriptorProto>) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| walk(&name, nested, found));
        if !message.options.as_ref().is_some_and(|options| options.map_entry()) {
            found.insert(name, message.clone());
        }
    }
    let mut found = BTreeMap::new();
    for file in files() {
        file.message_type
            .iter()
            .for_each(|message| walk(file.package(), message, &mut found));
    }
    found
}

fn enums() -> BTreeMap<String, EnumDescriptorProto> {
    let top = files().into_iter().flat_map(|file| {
        let package = file.package().to_string();
        file.enum_type
            .into_iter()
            .map(move |e| (format!("{package}.{}", e.name()), e))
    });
    let nested = messages().into_iter().flat_map(|(scope, message)| {
        message
            .enum_type
            .into_iter()
            .map(move |e| (format!("{scope}.{}", e.name()), e))
    });
    top.chain(nested).collect()
}

#[test]
fn numbers_are_unique_and_not_reserved() {
    let messages = messages();
    assert!(messages.len() > 500, "only {} messages compiled", messages.len());
    for (name, message) in &messages {
        let mut numbers = BTreeSet::new();
        for field in &message.field {
            assert!(
                numbers.insert(field.number()),
                "{name}.{} has a number twice: {}",
                field.name(),
                field.number()
            );
            let reserved = message
                .reserved_range
                .iter()
                .any(|range| (range.start()..range.end()).contains(&field.number()));
            assert!(!reserved, "{name}.{} has a reserved number: {}", field.name(), field.number());
        }
        let names: BTreeSet<&str> = message.field.iter().map(|field| field.name()).collect();
        assert_eq!(names.len(), message.field.len(), "{name} has a field name twice");
    }
}

#[test]
fn enums_start_at_zero_without_aliases() {
    for (name, e) in enums() {
        assert!(
            e.value.first().is_some_and(|value| value.number() == 0),
            "{name} does not start at zero"
        );
        let numbers: BTreeSet<i32> = e.value.iter().map(|value| value.number()).collect();
        assert_eq!(numbers.len(), e.value.len(), "{name} has a number twice");
    }
}

/// A request and its answer in BatchCommands go by one number and name, and by the messages of the unary RPC.
#[test]
fn batch_commands_mirror_each_other() {
    let messages = messages();
    let commands = |name: &str| -> BTreeMap<i32, (String, String)> {
        let fields = &messages[name].field;
        fields
            .iter()
            .map(|field| (field.number(), (field.name().to_string(), field.type_name().to_string())))
            .collect()
    };
    let requests = commands("tikvpb.BatchCommandsRequest.Request");
    let responses = commands("tikvpb.BatchCommandsResponse.Response");
    assert_eq!(requests.len(), 35);
    assert_eq!(requests.keys().collect::<Vec<_>>(), responses.keys().collect::<Vec<_>>());
    for (number, (name, request)) in &requests {
        let (response_name, response) = &responses[number];
        assert_eq!(name, response_name, "names of command {number}");
        assert_eq!(
            request.replace("Request", "Response"),
            *response,
            "messages of command {number}"
        );
    }
}

/// Clients unwrap the header of whatever PD answers. The global configuration alone has none, or has it elsewhere.
#[test]
fn answers_of_pd_begin_with_their_header() {
    let messages = messages();
    for method in methods("pdpb", "PD")
        .iter()
        .filter(|method| !method.name().ends_with("GlobalConfig"))
    {
        let (request, response) = (&method.input_type()[1..], &method.output_type()[1..]);
        for (message, header) in [(request, ".pdpb.RequestHeader"), (response, ".pdpb.ResponseHeader")] {
            let first = messages[message]
                .field
                .iter()
                .find(|field| field.number() == 1)
                .expect(message);
            assert_eq!(first.name(), "header", "{message}");
            if message != "pdpb.GetClusterInfoRequest" {
                assert_eq!(first.type_name(), header, "{message}");
            }
        }
    }
}

fn methods(package: &str, service: &str) -> Vec<MethodDescriptorProto> {
    let file = files().into_iter().find(|file| file.package() == package).expect(package);
    file.service.into_iter().find(|s| s.name() == service).expect(service).method
}

/// `rpcs.txt` tells a reader which paths exist; it is written by hand so that a change of a path is seen in review.
#[test]
fn rpcs_are_those_of_the_list() {
    let stream = |yes: bool| if yes { "stream " } else { "" };
    let mut actual = BTreeSet::new();
    for file in files() {
        for service in &file.service {
            for method in &service.method {
                actual.insert(format!(
                    "/{}.{}/{} {}{} -> {}{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    &method.input_type()[1..],
                    stream(method.server_streaming()),
                    &method.output_type()[1..],
                ));
            }
        }
    }
    let listed: BTreeSet<String> = include_str!("../rpcs.txt").lines().map(str::to_string).collect();
    let missing: Vec<&String> = actual.difference(&listed).collect();
    let gone: Vec<&String> = listed.difference(&actual).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "rpcs.txt lacks {missing:#?} and lists without cause {gone:#?}"
    );
}
