// The suite of all kernels (support/kernel-suite.ts) over every backend that this runtime has.

import { test } from "uvu";
import { eachBackend } from "./support/backends.ts";
import { kernelTests } from "./support/kernel-suite.ts";

eachBackend((backend) => kernelTests(test, backend));

test.run();
