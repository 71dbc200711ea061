//! AWS's words for "not now", once for all who sort its errors: the adapters that know the SDK, and the jobs that know no more
//! than the word.

/// Too many requests, whatever they ask for.
const THROTTLED: [&str; 5] = ["Throttl", "RequestLimitExceeded", "TooManyRequests", "SlowDown", "RateExceeded"];
/// There are as many of a thing as there may be.
const FULL: [&str; 3] = ["ResourceLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException"];

/// AWS's code says that too much was asked in too short a time: turned away, and to be asked again later.
pub fn throttled(aws_code: &str) -> bool {
    THROTTLED.iter().any(|word| aws_code.contains(word))
}

/// AWS's code says "too much" or "not now". EC2 says some of them with 503 (`A§3.3`); whatever the status, the call was turned
/// away before it did anything.
pub fn limited(aws_code: &str) -> bool {
    throttled(aws_code) || FULL.iter().any(|word| aws_code.contains(word))
}
