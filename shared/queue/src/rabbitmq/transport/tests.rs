use super::*;
use lapin::protocol::basic::{AMQPMethod, parse_properties};
use lapin::protocol::{AMQPClass, parse_class};

const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1][..], &length, payload, &[0xce]].concat()
}

/// What the client gets of that, when it comes in pieces of that size.
fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut frames = Frames::default();
    let (mut got, mut buffer) = (Vec::new(), [0; 5]);
    for piece in bytes.chunks(piece) {
        frames.take(piece);
        loop {
            let given = frames.give(&mut buffer);
            if given == 0 {
                break;
            }
            got.extend_from_slice(&buffer[..given]);
        }
    }
    got
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A content header with those properties, all of them after the flags.
fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
    [
        &[0, 60, 0, 0][..],
        &7u64.to_be_bytes(),
        &flags.to_be_bytes(),
        properties,
    ]
    .concat()
}

/// The properties as the client reads them after mending, which must be all that there is.
fn read(flags: u16, properties: &[u8]) -> lapin::BasicProperties {
    let mut payload = header(flags, properties);
    mend::frame(CONTENT_HEADER, &mut payload);
    let (rest, read) = parse_properties(&payload[12..]).expect("the client can read it");
    assert!(rest.is_empty());
    read
}

#[test]
fn every_text_is_readable() {
    let texts = [
        0x8000, 0x4000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010, 0x0008, 0x0004,
    ];
    for flag in texts {
        assert!(parse_properties(&header(flag, &short(b"caf\xe9"))[12..]).is_err());
        read(flag, &short(b"caf\xe9"));
    }
    let app_id = |text: &[u8]| read(0x0008, &short(text)).app_id().as_ref().unwrap().to_string();
    assert_eq!(app_id(b"caf\xe9"), "caf?");
    assert_eq!(app_id("caf\u{e9}".as_bytes()), "caf\u{e9}");
    assert_eq!(app_id(b"\xff\xf0\x90a\xe2\x82"), "???a??");
}

#[test]
fn headers_are_readable_and_their_values_are_as_they_came() {
    let inner = [short(b"\xe9"), b"t\x01".to_vec()].concat();
    let entries = [
        [short(b"caf\xe9"), b"S".to_vec(), long(b"caf\xe9")].concat(),
        [short(b"n"), b"F".to_vec(), long(&inner)].concat(),
        [
            short(b"a"),
            b"A".to_vec(),
            long(&[b"I\0\0\0\x07".to_vec(), [b"F".to_vec(), long(&inner)].concat()].concat()),
        ]
        .concat(),
        [
            short(b"all"),
            b"A".to_vec(),
            long(b"b1B1s22u22U22I4444i4444f4444D55555l88888888L88888888d88888888T88888888Vx\0\0\0\x01\xff"),
        ]
        .concat(),
    ];
    let read = read(0x2000, &long(&entries.concat()));
    let headers = read.headers().as_ref().unwrap();
    let names: Vec<_> = headers.inner().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "all", "caf?", "n"]);
    assert_eq!(
        headers.inner()["caf?"],
        lapin::types::AMQPValue::LongString(b"caf\xe9".to_vec().into())
    );
}

#[test]
fn depth_is_bounded() {
    let mut deep = Vec::new();
    for _ in 0..20_000 {
        deep = [b"A".to_vec(), long(&deep)].concat();
    }
    let read = read(0x2000, &long(&[short(b"d"), deep].concat()));
    assert_eq!(read.headers().as_ref().unwrap().inner().len(), 1);
}

#[test]
fn the_routing_key_and_the_exchange_are_readable() {
    let deliver = [
        &[0, 60, 0, 60][..],
        &short(b"tag"),
        &9u64.to_be_bytes(),
        &[0],
        &short(b"exch\xe4nge"),
        &short(b"k\xe9y"),
    ];
    let bytes = frame(METHOD, &deliver.concat());
    let got = through(&bytes, bytes.len());
    let (_, class) = parse_class(&got[7..got.len() - 1]).expect("the client can read it");
    let AMQPClass::Basic(AMQPMethod::Deliver(deliver)) = class else {
        panic!("{class:?}");
    };
    assert_eq!(
        (
            deliver.routing_key.as_str(),
            deliver.exchange.as_str(),
            deliver.delivery_tag
        ),
        ("k?y", "exch?nge", 9)
    );
}

#[test]
fn frames_are_the_same_however_they_come_and_others_pass() {
    let greeting = frame(METHOD, b"\0\x0a\0\x0a whatever \xff");
    let body = frame(BODY, &[0xe9; 300]);
    let large = frame(CONTENT_HEADER, &vec![0xe9; MAX_FRAME + 1]);
    let header = |text: &[u8]| frame(CONTENT_HEADER, &header(0x0008, &short(text)));
    let heartbeat = frame(8, b"");
    let sent = [
        &greeting[..],
        &header(b"caf\xe9"),
        &body,
        &heartbeat,
        &large,
        &header(b"\xff"),
    ]
    .concat();
    let expected = [
        &greeting[..],
        &header(b"caf?"),
        &body,
        &heartbeat,
        &large,
        &header(b"?"),
    ]
    .concat();
    for piece in [1, 6, 7, 8, 9, 100, 4096, sent.len()] {
        assert!(through(&sent, piece) == expected, "in pieces of {piece}");
    }
    // A server that speaks another version answers with its own greeting.
    assert_eq!(through(b"AMQP\0\0\x09\x01", 3), b"AMQP\0\0\x09\x01");
}

#[test]
fn what_is_cut_short_or_unknown_is_left_as_it_is() {
    let whole = header(0xfffc, &[0; 64]);
    for length in 0..whole.len() {
        let mut cut = whole[..length].to_vec();
        mend::frame(CONTENT_HEADER, &mut cut);
        assert_eq!(cut, whole[..length]);
    }
    let unknown = header(0x2000, &long(&[&short(b"n")[..], b"?whatever"].concat()));
    let mut after = unknown.clone();
    mend::frame(CONTENT_HEADER, &mut after);
    assert_eq!(after, unknown);
}
