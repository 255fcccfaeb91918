"""From scans to the store: fingerprint, plan, resampling, prepared scans."""
