package onnxruntime

// function is the index of a function in struct OrtApi, which is append-only: an index means the same
// function in every release that has it.
type function int

const (
	getErrorCode                   function = 1
	getErrorMessage                function = 2
	createEnv                      function = 3
	createSession                  function = 7
	run                            function = 9
	createSessionOptions           function = 10
	disableMemPattern              function = 17
	disableCPUMemArena             function = 19
	setIntraOpNumThreads           function = 24
	setInterOpNumThreads           function = 25
	sessionGetInputCount           function = 30
	sessionGetOutputCount          function = 31
	sessionGetInputTypeInfo        function = 33
	sessionGetOutputTypeInfo       function = 34
	sessionGetInputName            function = 36
	sessionGetOutputName           function = 37
	createRunOptions               function = 39
	runOptionsSetTerminate         function = 46
	runOptionsUnsetTerminate       function = 47
	createTensor                   function = 48
	createTensorWithData           function = 49
	getTensorMutableData           function = 51
	getStringTensorDataLength      function = 53
	getStringTensorContent         function = 54
	castTypeInfoToTensorInfo       function = 55
	getOnnxTypeFromTypeInfo        function = 56
	getTensorElementType           function = 60
	getDimensionsCount             function = 61
	getDimensions                  function = 62
	getSymbolicDimensions          function = 63
	getTensorTypeAndShape          function = 65
	getValueType                   function = 67
	createCPUMemoryInfo            function = 69
	allocatorFree                  function = 76
	getAllocatorWithDefaultOptions function = 78
	getValue                       function = 80
	getValueCount                  function = 81
	releaseMemoryInfo              function = 94
	createAndRegisterAllocator     function = 144
	releaseArenaCfg                function = 157
	createArenaCfgV2               function = 164
	addRunConfigEntry              function = 165
	releaseStatus                  function = 93
	releaseSession                 function = 95
	releaseValue                   function = 96
	releaseRunOptions              function = 97
	releaseTypeInfo                function = 98
	releaseTensorTypeAndShapeInfo  function = 99
	releaseSessionOptions          function = 100
	castTypeInfoToMapTypeInfo      function = 103
	castTypeInfoToSequenceTypeInfo function = 104
	getMapKeyType                  function = 105
	getMapValueType                function = 106
	getSequenceElementType         function = 107
	getAvailableProviders          function = 125
	releaseAvailableProviders      function = 126
	addSessionConfigEntry          function = 130
	appendTensorRT                 function = 170
	createTensorRTProviderOptions  function = 171
	releaseTensorRTProviderOptions function = 174
	appendCUDA                     function = 204
	createCUDAProviderOptions      function = 205
	releaseCUDAProviderOptions     function = 208
	appendExecutionProvider        function = 216
	castTypeInfoToOptionalTypeInfo function = 250
	getOptionalContainedTypeInfo   function = 251
	getResizedStringElementBuffer  function = 252
)
