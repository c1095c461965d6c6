use chopmark_cache::*; use chopmark_domain::ports::*; use ledger_core::hash::*;
fn rss()->String{std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l|l.starts_with("VmRSS")).unwrap().to_owned()}
fn cpu() -> u64 { let s=std::fs::read_to_string("/proc/self/stat").unwrap(); let f:Vec<&str>=s.rsplit(')').next().unwrap().split_whitespace().collect(); [11,12].iter().map(|a|f[*a].parse::<u64>().unwrap()).sum::<u64>()*10 }
#[tokio::test] async fn m(){ let c=MemoryCache::default(); println!("{}",rss());
 let keys:Vec<_>=(0..1_000_000u64).map(|n|{let mut a=[0;32];a[..8].copy_from_slice(&n.wrapping_mul(0x9e3779b97f4a7c15).to_be_bytes());(Hash32(a),Hash32(a))}).collect();
 println!("{}",rss());
 let (mut a,mut b)=(0,0);
 for k in keys.chunks(100_000){let t=cpu(); for k in k.chunks(1000){c.claim(k).await.unwrap();} a+=cpu()-t; let t=cpu(); for k in k.chunks(1000){c.settle(k).await.unwrap();} b+=cpu()-t;} println!("1M claim {a} ms cpu settle {b} ms cpu {}",rss());
 let t=cpu(); for k in keys[900_000..].chunks(1){c.claim(k).await.unwrap();} println!("100k repeat {} ms cpu",cpu()-t); }
