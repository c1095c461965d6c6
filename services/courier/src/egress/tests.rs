//! A table of URLs and what becomes of them, and the exceptions.

use super::*;

/// What somebody might write, and the verdict.
#[rustfmt::skip]
const TABLE: [(&str, Result<(), UrlRefusal>); 253] = {
    use AddressClass::{
        Benchmarking, Broadcast, Documentation, Embedded, LinkLocal, Loopback, Multicast, Private, Reserved, Shared,
        Unspecified,
    };
    use UrlRefusal::{Address, Fragment, Host, Malformed, Port, Scheme, UserInfo};
    [
        ("https://hooks.shop.cn/", Ok(())),
        ("https://hooks.shop.cn", Ok(())),
        ("HTTPS://Hooks.Shop.CN/a?b=c", Ok(())),
        ("https://hooks.shop.cn:443/", Ok(())),
        ("https://hooks.shop.cn:8443/x", Ok(())),
        ("https://hooks.shop.cn:9443/", Ok(())),
        ("https://a.b.c.d.e.shop.cn/", Ok(())),
        ("https://xn--fiqs8s.cn/", Ok(())),
        ("https://中国.cn/hook", Ok(())),
        ("https://例え.jp/", Ok(())),
        ("https://bücher.de/", Ok(())),
        ("https://hooks.shop.example/x", Ok(())),
        ("https://hooks.shop.cn./", Ok(())),
        ("https://8.8.8.8/", Ok(())),
        ("https://1.1.1.1:8443/", Ok(())),
        ("https://[2606:4700:4700::1111]/", Ok(())),
        ("https://[2a00:1450:4001:82b::200e]/", Ok(())),
        ("https://9.255.255.255/", Ok(())),
        ("https://11.0.0.1/", Ok(())),
        ("https://100.63.255.255/", Ok(())),
        ("https://100.128.0.1/", Ok(())),
        ("https://126.255.255.255/", Ok(())),
        ("https://128.0.0.1/", Ok(())),
        ("https://169.253.255.255/", Ok(())),
        ("https://169.255.0.1/", Ok(())),
        ("https://172.15.255.255/", Ok(())),
        ("https://172.32.0.1/", Ok(())),
        ("https://192.0.1.1/", Ok(())),
        ("https://192.0.3.1/", Ok(())),
        ("https://192.167.255.255/", Ok(())),
        ("https://192.169.0.1/", Ok(())),
        ("https://198.17.255.255/", Ok(())),
        ("https://198.20.0.1/", Ok(())),
        ("https://198.51.99.255/", Ok(())),
        ("https://198.51.101.1/", Ok(())),
        ("https://203.0.112.255/", Ok(())),
        ("https://203.0.114.1/", Ok(())),
        ("https://223.255.255.255/", Ok(())),
        ("https://0x08.0x08.0x08.0x08/", Ok(())),
        ("https://134744072/", Ok(())),
        ("https://010.8.8.8/", Ok(())),
        ("https://[2001:200::1]/", Ok(())),
        ("https://[2003::1]/", Ok(())),
        ("https://[2400:cb00::1]/", Ok(())),
        ("https://[3ffe::1]/", Ok(())),
        ("https://hooks-local.cn/", Ok(())),
        ("https://mylocalhost.cn/", Ok(())),
        ("https://internal.shop.cn/", Ok(())),
        ("https://localhost.shop.cn/", Ok(())),
        ("http://hooks.shop.cn/", Err(Scheme)),
        ("http://8.8.8.8/", Err(Scheme)),
        ("ftp://hooks.shop.cn/", Err(Scheme)),
        ("ws://hooks.shop.cn/", Err(Scheme)),
        ("wss://hooks.shop.cn/", Err(Scheme)),
        ("http://127.0.0.1/", Err(Scheme)),
        ("http://[::1]/", Err(Scheme)),
        ("http://10.0.0.1/", Err(Scheme)),
        ("", Err(Malformed)),
        ("hooks.shop.cn", Err(Malformed)),
        ("//hooks.shop.cn/", Err(Malformed)),
        ("https://", Err(Malformed)),
        ("https:///", Err(Malformed)),
        ("https://[::1", Err(Malformed)),
        ("https://[::g]/", Err(Malformed)),
        ("https://256.256.256.256/", Err(Malformed)),
        ("https://1.2.3.4.5/", Err(Malformed)),
        ("https://hooks shop.cn/", Err(Malformed)),
        ("https://hooks.shop.cn/a b", Err(Malformed)),
        ("https://hooks.shop.cn/\n", Err(Malformed)),
        ("https://hooks.shop.cn\\@127.0.0.1/", Err(Malformed)),
        ("\thttps://hooks.shop.cn/", Err(Malformed)),
        ("https://hooks.shop.cn/\u{0}", Err(Malformed)),
        ("https://hooks.shop.cn:99999/", Err(Malformed)),
        ("https://hooks.shop.cn:-1/", Err(Malformed)),
        ("https://hooks.shop.cn:a/", Err(Malformed)),
        ("https://%zz.cn/", Err(Malformed)),
        ("https://a%00b.cn/", Err(Malformed)),
        ("javascript:alert(1)", Err(Malformed)),
        ("data:text/plain,x", Err(Malformed)),
        ("file:///etc/passwd", Err(Malformed)),
        ("gopher:x", Err(Malformed)),
        ("https://[fe80::1%25eth0]/", Err(Malformed)),
        ("https://[fe80::1%eth0]/", Err(Malformed)),
        ("https://0x1ffffffff/", Err(Malformed)),
        ("https://4294967296/", Err(Malformed)),
        ("https://xn--/", Err(Malformed)),
        ("https://a<b.cn/", Err(Malformed)),
        ("https://a^b.cn/", Err(Malformed)),
        ("https://[1.2.3.4]/", Err(Malformed)),
        ("https://0x100.0.0.1/", Err(Malformed)),
        ("https://user@hooks.shop.cn/", Err(UserInfo)),
        ("https://user:pass@hooks.shop.cn/", Err(UserInfo)),
        ("https://:pass@hooks.shop.cn/", Err(UserInfo)),
        ("https://@hooks.shop.cn/", Err(UserInfo)),
        ("https://hooks.shop.cn@127.0.0.1/", Err(UserInfo)),
        ("https://hooks.shop.cn:443@127.0.0.1/", Err(UserInfo)),
        ("https://127.0.0.1@hooks.shop.cn/", Err(UserInfo)),
        ("https://a%40b@hooks.shop.cn/", Err(UserInfo)),
        ("https://hooks.shop.cn%2f@127.0.0.1/", Err(UserInfo)),
        ("https://hooks.shop.cn/#", Err(Fragment)),
        ("https://hooks.shop.cn/#a", Err(Fragment)),
        ("https://hooks.shop.cn#@127.0.0.1/", Err(Fragment)),
        ("https://hooks.shop.cn/a?b#c", Err(Fragment)),
        ("https://hooks.shop.cn:80/", Err(Port)),
        ("https://hooks.shop.cn:22/", Err(Port)),
        ("https://hooks.shop.cn:25/", Err(Port)),
        ("https://hooks.shop.cn:6379/", Err(Port)),
        ("https://hooks.shop.cn:5432/", Err(Port)),
        ("https://hooks.shop.cn:9200/", Err(Port)),
        ("https://hooks.shop.cn:0/", Err(Port)),
        ("https://8.8.8.8:8080/", Err(Port)),
        ("https://[2606:4700:4700::1111]:9092/", Err(Port)),
        ("https://localhost/", Err(Host)),
        ("https://LOCALHOST/", Err(Host)),
        ("https://localhost./", Err(Host)),
        ("https://localhost:8443/", Err(Host)),
        ("https://a.localhost/", Err(Host)),
        ("https://shop/", Err(Host)),
        ("https://intranet/", Err(Host)),
        ("https://metadata/", Err(Host)),
        ("https://metadata.google.internal/", Err(Host)),
        ("https://instance-data.ec2.internal/", Err(Host)),
        ("https://printer.local/", Err(Host)),
        ("https://printer.local./", Err(Host)),
        ("https://nas.lan/", Err(Host)),
        ("https://nas.home/", Err(Host)),
        ("https://nas.home.arpa/", Err(Host)),
        ("https://a.corp/", Err(Host)),
        ("https://a.private/", Err(Host)),
        ("https://a.intranet/", Err(Host)),
        ("https://a.internal/", Err(Host)),
        ("https://a.test/", Err(Host)),
        ("https://a.invalid/", Err(Host)),
        ("https://a.onion/", Err(Host)),
        ("https://a.localdomain/", Err(Host)),
        ("https://1.0.0.127.in-addr.arpa/", Err(Host)),
        ("https://a.alt/", Err(Host)),
        ("https://a_b.shop.cn/", Err(Host)),
        ("https://_dmarc.shop.cn/", Err(Host)),
        ("https://a..b.cn/", Err(Host)),
        ("https://ｌｏｃａｌｈｏｓｔ/", Err(Host)),
        ("https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", Err(Host)),
        ("https://LocalHost%2e/", Err(Host)),
        ("https://%6cocalhost/", Err(Host)),
        ("https://.cn/", Err(Host)),
        ("https://0.0.0.0/", Err(Address(Unspecified))),
        ("https://0/", Err(Address(Unspecified))),
        ("https://0.1.2.3/", Err(Address(Unspecified))),
        ("https://[::]/", Err(Address(Unspecified))),
        ("https://0x0/", Err(Address(Unspecified))),
        ("https://00/", Err(Address(Unspecified))),
        ("https://[0:0:0:0:0:0:0:0]/", Err(Address(Unspecified))),
        ("https://127.0.0.1/", Err(Address(Loopback))),
        ("https://127.1/", Err(Address(Loopback))),
        ("https://127.0.1/", Err(Address(Loopback))),
        ("https://127.255.255.255/", Err(Address(Loopback))),
        ("https://2130706433/", Err(Address(Loopback))),
        ("https://0x7f000001/", Err(Address(Loopback))),
        ("https://0x7f.0.0.1/", Err(Address(Loopback))),
        ("https://0177.0.0.1/", Err(Address(Loopback))),
        ("https://017700000001/", Err(Address(Loopback))),
        ("https://0x7f.1/", Err(Address(Loopback))),
        ("https://127.0.0.1./", Err(Address(Loopback))),
        ("https://127。0。0。1/", Err(Address(Loopback))),
        ("https://１２７.0.0.1/", Err(Address(Loopback))),
        ("https://①②⑦.0.0.1/", Err(Address(Loopback))),
        ("https://%31%32%37.0.0.1/", Err(Address(Loopback))),
        ("https://127%2e0%2e0%2e1/", Err(Address(Loopback))),
        ("https://[::1]/", Err(Address(Loopback))),
        ("https://[0:0:0:0:0:0:0:1]/", Err(Address(Loopback))),
        ("https://[0000::0001]/", Err(Address(Loopback))),
        ("https://127.0.0.1:8443/", Err(Address(Loopback))),
        ("https://127.0.0.1:443/", Err(Address(Loopback))),
        ("https://10.0.0.1/", Err(Address(Private))),
        ("https://10.255.255.255/", Err(Address(Private))),
        ("https://0x0a.0.0.1/", Err(Address(Private))),
        ("https://167772161/", Err(Address(Private))),
        ("https://012.0.0.1/", Err(Address(Private))),
        ("https://172.16.0.1/", Err(Address(Private))),
        ("https://172.31.255.255/", Err(Address(Private))),
        ("https://192.168.0.1/", Err(Address(Private))),
        ("https://192.168.255.255/", Err(Address(Private))),
        ("https://0xc0a80001/", Err(Address(Private))),
        ("https://3232235521/", Err(Address(Private))),
        ("https://[fc00::1]/", Err(Address(Private))),
        ("https://[fd00::1]/", Err(Address(Private))),
        ("https://[fdff:ffff::1]/", Err(Address(Private))),
        ("https://[fec0::1]/", Err(Address(Private))),
        ("https://[fd00:ec2::254]/", Err(Address(Private))),
        ("https://100.64.0.1/", Err(Address(Shared))),
        ("https://100.127.255.255/", Err(Address(Shared))),
        ("https://100.100.100.200/", Err(Address(Shared))),
        ("https://169.254.0.1/", Err(Address(LinkLocal))),
        ("https://169.254.169.254/", Err(Address(LinkLocal))),
        ("https://169.254.170.2/", Err(Address(LinkLocal))),
        ("https://2852039166/", Err(Address(LinkLocal))),
        ("https://0xa9fea9fe/", Err(Address(LinkLocal))),
        ("https://0xa9.0xfe.0xa9.0xfe/", Err(Address(LinkLocal))),
        ("https://0251.0376.0251.0376/", Err(Address(LinkLocal))),
        ("https://[fe80::1]/", Err(Address(LinkLocal))),
        ("https://[febf::1]/", Err(Address(LinkLocal))),
        ("https://224.0.0.1/", Err(Address(Multicast))),
        ("https://239.255.255.255/", Err(Address(Multicast))),
        ("https://[ff02::1]/", Err(Address(Multicast))),
        ("https://[ff00::]/", Err(Address(Multicast))),
        ("https://255.255.255.255/", Err(Address(Broadcast))),
        ("https://4294967295/", Err(Address(Broadcast))),
        ("https://0xffffffff/", Err(Address(Broadcast))),
        ("https://192.0.2.1/", Err(Address(Documentation))),
        ("https://198.51.100.1/", Err(Address(Documentation))),
        ("https://203.0.113.255/", Err(Address(Documentation))),
        ("https://[2001:db8::1]/", Err(Address(Documentation))),
        ("https://[3fff::1]/", Err(Address(Documentation))),
        ("https://[3fff:fff::1]/", Err(Address(Documentation))),
        ("https://198.18.0.1/", Err(Address(Benchmarking))),
        ("https://198.19.255.255/", Err(Address(Benchmarking))),
        ("https://192.0.0.1/", Err(Address(Reserved))),
        ("https://192.0.0.170/", Err(Address(Reserved))),
        ("https://192.88.99.1/", Err(Address(Reserved))),
        ("https://240.0.0.1/", Err(Address(Reserved))),
        ("https://254.255.255.255/", Err(Address(Reserved))),
        ("https://[2001::1]/", Err(Address(Reserved))),
        ("https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", Err(Address(Reserved))),
        ("https://[2001:2::1]/", Err(Address(Reserved))),
        ("https://[2001:10::1]/", Err(Address(Reserved))),
        ("https://[2001:20::1]/", Err(Address(Reserved))),
        ("https://[2001:1ff:ffff::1]/", Err(Address(Reserved))),
        ("https://[100::1]/", Err(Address(Reserved))),
        ("https://[5f00::1]/", Err(Address(Reserved))),
        ("https://[4000::1]/", Err(Address(Reserved))),
        ("https://[8000::1]/", Err(Address(Reserved))),
        ("https://[e000::1]/", Err(Address(Reserved))),
        ("https://[200::1]/", Err(Address(Reserved))),
        ("https://168.63.129.16/", Err(Address(Reserved))),
        ("https:hooks.shop.cn/", Err(Malformed)),
        ("https:/hooks.shop.cn/", Err(Malformed)),
        ("https:\\\\hooks.shop.cn/", Err(Malformed)),
        ("https://[::ffff:127.0.0.1]/", Err(Address(Embedded))),
        ("https://[::ffff:7f00:1]/", Err(Address(Embedded))),
        ("https://[::ffff:10.0.0.1]/", Err(Address(Embedded))),
        ("https://[::ffff:8.8.8.8]/", Err(Address(Embedded))),
        ("https://[0:0:0:0:0:ffff:a9fe:a9fe]/", Err(Address(Embedded))),
        ("https://[::127.0.0.1]/", Err(Address(Embedded))),
        ("https://[::8.8.8.8]/", Err(Address(Embedded))),
        ("https://[::ffff:0:127.0.0.1]/", Err(Address(Embedded))),
        ("https://[64:ff9b::7f00:1]/", Err(Address(Embedded))),
        ("https://[64:ff9b::10.0.0.1]/", Err(Address(Embedded))),
        ("https://[64:ff9b::8.8.8.8]/", Err(Address(Embedded))),
        ("https://[64:ff9b:1::1]/", Err(Address(Embedded))),
        ("https://[64:ff9b:1:ffff::a00:1]/", Err(Address(Embedded))),
        ("https://[2002:7f00:1::]/", Err(Address(Embedded))),
        ("https://[2002:a00:1::1]/", Err(Address(Embedded))),
        ("https://[2002:808:808::1]/", Err(Address(Embedded))),
    ]
};

#[test]
fn every_url_has_its_verdict() {
    let egress = Egress::default();
    let wrong: Vec<_> = TABLE
        .iter()
        .map(|(url, expected)| (url, egress.parse(url).map(drop), expected))
        .filter(|(_, found, expected)| found != *expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(TABLE.len() >= 200);
}

#[test]
fn what_was_read_once_reads_the_same_again() {
    let egress = Egress::default();
    for (url, _) in TABLE.iter().filter(|(_, verdict)| verdict.is_ok()) {
        let read = egress.parse(url).unwrap();
        assert_eq!(egress.parse(read.url().as_str()), Ok(read), "{url}");
    }
}

#[test]
fn exceptions_are_addresses_and_nothing_else() {
    let egress = Egress::new(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    for good in ["http://127.0.0.1:5000/hook", "https://127.1:22/", "http://[fd00::1]:80/", "https://hooks.shop.cn/"] {
        assert!(egress.parse(good).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("http://hooks.shop.cn/", UrlRefusal::Scheme),
        ("http://10.0.0.1/", UrlRefusal::Scheme),
        ("https://10.0.0.1/", UrlRefusal::Address(AddressClass::Private)),
        ("https://localhost/", UrlRefusal::Host),
        ("https://[::1]/", UrlRefusal::Address(AddressClass::Loopback)),
        ("https://[::ffff:127.0.0.1]/", UrlRefusal::Address(AddressClass::Embedded)),
        ("http://user@127.0.0.1/", UrlRefusal::UserInfo),
    ] {
        assert_eq!(egress.parse(bad), Err(why), "{bad}");
    }
    assert!(egress.permits(IpAddr::from([127, 0, 0, 9])).is_ok());
    assert!(egress.permits(IpAddr::from([10, 0, 0, 9])).is_err());
}

#[test]
fn a_url_has_a_bound_and_is_not_shown_with_its_token() {
    let egress = Egress::default();
    // The second is short as it is written, and long in the form that is kept.
    for long in ["a".repeat(URL_CHARS_MAX), "中".repeat(600)] {
        assert_eq!(egress.parse(&format!("https://hooks.shop.cn/{long}")), Err(UrlRefusal::Malformed));
    }
    let longest = format!("https://hooks.shop.cn/{}", "a".repeat(URL_CHARS_MAX - 22));
    assert_eq!(egress.parse(egress.parse(&longest).unwrap().url().as_str()), egress.parse(&longest));
    let shown = format!("{:?}", egress.parse("https://hooks.shop.cn/token-hunter2?key=hunter2").unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".*", tail in "[0-9a-fx.:@/#%\\[\\]]{0,40}") {
        let egress = Egress::default();
        let _ = egress.parse(&text);
        let _ = egress.parse(&format!("https://{text}"));
        if let Ok(url) = egress.parse(&format!("https://{tail}")) {
            // Whatever is let through names no address that is not.
            let address = match url.url().host() {
                Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
                Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
                _ => None,
            };
            proptest::prop_assert!(address.is_none_or(|address| egress.permits(address).is_ok()));
        }
    }
}
