// The emulated devices are of sm_90: cuda/device/sm90.h has nothing to say here.
#pragma once
